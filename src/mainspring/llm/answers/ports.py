"""Ports of answers: what retrieves passages, and what orders them anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.core.expr.tree import Node
from mainspring.llm.answers.model import Passage, Retrieved


class Retrieving(Protocol):
    """Search in a collection. Threads may share it."""

    def retrieve(self, query: str, k: int, *, where: Node | None = None, tenant: str | None = None) -> Retrieved:
        """Return the best passages, fewer than `k` only where there are fewer.

        Args:
            where: Condition on the collection's fields.
            tenant: Whose documents are searched, where they are of several; no condition widens it.

        Raises:
            Invalid: The query has no words, the condition is none on the fields, or the tenant is missing.
            Unavailable: An encoder elsewhere does not answer.
        """
        ...


class Reranker(Protocol):
    """A second, dearer judgement of what a search found. Threads may share it."""

    @property
    def digest(self) -> str:
        """Digest of all that its scores depend on."""
        ...

    def score(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """Return how well each passage answers the query, shape (len(passages),); more is better.

        Raises:
            MainspringError: There are no scores, within the time that it has; the passages stay as they were found.
        """
        ...
