"""Values of answers: a question, retrieved passages, citations, and an answer with all that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from mainspring.core.expr.tree import Node
from mainspring.ledger.model import Value
from mainspring.llm.model import Message, Usage

# "Nothing retrieved": no passage has the least score, and no model was asked. "Declined": the model says that the
# passages do not answer. "Nothing cited": it cites none of them.
Reason = Literal["", "nothing retrieved", "nothing cited", "declined"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a chain of answers, with what its answer depends on beside the chain.

    Attributes:
        before: Messages of the conversation before it; only a chain that rewrites reads them.
        where: Condition on the collection's fields.
        tenant: Whose documents are searched; decided by the server, never by what a caller sends.
        keys: Entity keys by which its record is erased.
        session: Name of the conversation. A rollout that assigns by key keeps it in one version; without it the
            question's entity keys, or else the caller, are kept.
    """

    text: str
    before: tuple[Message, ...] = ()
    where: Node | None = None
    tenant: str | None = None
    keys: Mapping[str, Value] = field(default_factory=dict[str, Value])
    session: str = ""


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was retrieved.

    Attributes:
        score: Of the search, or of the reranker.
        similarity: Of its vector to the query's; `None` of a search by words alone.
        document: Key of its document.
        start, end: Offsets in the document, in characters.
        path: Headings above it, the outermost first.
    """

    id: str
    score: float
    document: str
    start: int
    end: int
    text: str
    path: tuple[str, ...] = ()
    similarity: float | None = None

    @property
    def nearness(self) -> float:
        """Similarity of its vector, which does not depend on the other passages; of a search by words its score."""
        return self.score if self.similarity is None else self.similarity


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """Passages of one query, the best first.

    Attributes:
        version: Name of the state of index and reranker: of equal versions, a query finds equal passages.
        rerank_failure: Why the passages were not ordered anew; empty if they were, or nothing does.
    """

    passages: tuple[Passage, ...]
    version: str
    rerank_failure: str = ""


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that an answer cites.

    Attributes:
        number: As the answer writes it: [1].
        chunk, document, start, end: Of the passage.
        at: Offsets of its marks in the answer's text.
    """

    number: int
    chunk: str
    document: str
    start: int
    end: int
    at: tuple[int, ...]


class CitedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its provenance.

    Attributes:
        id: Of its record in the prediction log.
        version: Of the chain.
        found: Whether it answers; else `text` says that nothing was found, and `reason` why.
        unknown_citations: Number of marks that cited no passage; they are not in `text`.
        query: What was searched for: the question, or as the model rewrote it.
        passages: Passages that were shown to the model, in the order of their numbers.
        left_out: Number of retrieved passages that did not fit into the prompt.
        rerank_failure: As of `Retrieved`.
        reply: Text of the model as it wrote it; empty where it was not asked.
        finish: Why the model ended, such as "length".
        prompt: Digest of the prompt's template.
        usage: Of all calls of the model.
        cost_micros: Of these, in millionths of the currency.
        latency_us: The whole time; of it are `query_us` for the query, `search_us` for passages, `reply_us` for the
            reply.
    """

    id: str
    answers: str
    version: str = ""
    question: str
    text: str
    found: bool
    reason: Reason = ""
    citations: tuple[Citation, ...] = ()
    unknown_citations: int = 0
    query: str
    passages: tuple[Passage, ...] = ()
    left_out: int = 0
    rerank_failure: str = ""
    index: str
    model: str
    prompt: str
    reply: str = ""
    finish: str = ""
    usage: Usage
    cost_micros: int = 0
    at: int  # UTC epoch microseconds
    latency_us: int
    query_us: int = 0
    search_us: int = 0
    reply_us: int = 0
