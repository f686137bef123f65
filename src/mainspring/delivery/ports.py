"""Ports of delivery: the store of rollouts, and that of gates' evaluations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.delivery.model import Evaluation
from mainspring.delivery.rollout.model import Look, RolloutState, Status


class Evaluations(Protocol):
    """Evaluations of versions' gates. Nothing is ever changed."""

    def add(self, evaluation: Evaluation) -> None:
        """Store an evaluation."""
        ...

    def newest(self, model: str, version: str | None = None, count: int = 1) -> list[Evaluation]:
        """Return the last evaluations of a model or of one version, up to `count`, the newest first."""
        ...


class RolloutStore(Protocol):
    """Rollouts and their looks. Every method is one transaction. Safe across threads, processes and machines."""

    def create(self, state: RolloutState, look: Look) -> RolloutState:
        """Store a new, live rollout with the look that tells who began it and why; return it with its revision.

        Raises:
            Conflict: A rollout of the same endpoint is live.
        """
        ...

    def replace(self, state: RolloutState, looks: Sequence[Look] = ()) -> RolloutState:
        """Store the next state of a rollout, and its looks; return it with the next revision.

        Raises:
            Conflict: The stored rollout has another revision than `state`. Nothing is stored.
            NotFound: The rollout does not exist.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[RolloutState | None]:
        """Return rollouts in the given order, `None` for unknown ids."""
        ...

    def live(self) -> list[RolloutState]:
        """Return the live rollouts, by endpoint."""
        ...

    def find(
        self,
        *,
        endpoints: Collection[str] = (),
        statuses: Collection[Status] = (),
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[RolloutState]:
        """Return at most `limit` rollouts, newest first; an empty filter means all.

        `before` is the `created_at` and `id` of the previous page's last rollout.
        """
        ...

    def expect_live(self, id: str, within: object = None) -> None:
        """Raise if a rollout is not live.

        Args:
            within: Transaction of the same catalog: the rollout then stays live until it ends.

        Raises:
            NotFound: It has ended.
        """
        ...

    def looks(self, rollout: str, *, after: int = 0, limit: int = 1_000) -> list[Look]:
        """Return at most `limit` looks of a rollout with a number above `after`, oldest first. Looks never change."""
        ...
