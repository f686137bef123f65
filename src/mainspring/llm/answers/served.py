"""Chains of answers as a gateway serves them: over the collections and language models that it serves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mainspring.core.expr.tree import Node
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.feedback import FeedbackColumn
from mainspring.llm.answers.model import CitedAnswer, Question, Retrieved
from mainspring.llm.answers.retrieving import CollectionRetrieving
from mainspring.llm.answers.serving import OpenAnswers
from mainspring.llm.answers.speaking import Noted
from mainspring.llm.model import Call, Deadlines
from mainspring.vectors.filtering import filter_node
from mainspring.vectors.model import Mode
from mainspring.vectors.served import ServedCollection

_QUOTING = Deadlines(whole=60_000_000)


@dataclass(frozen=True, slots=True, eq=False)
class ServedChain:
    """A chain of answers that callers may ask, as it is declared now.

    Attributes:
        open: It in all its versions.
        collection: That which it is declared with.
        feedback: Columns by which its answers are rated.
    """

    open: OpenAnswers
    collection: ServedCollection
    feedback: tuple[FeedbackColumn, ...] = ()

    @property
    def declared(self) -> Answers:
        return self.open.declared

    @property
    def deadlines(self) -> Deadlines:
        """Deadlines of a call of its model; `whole` is that of an answer too."""
        return _QUOTING if self.declared.model is None else self.declared.model.deadlines

    async def answer(
        self, question: Question, call: Call, *, filter: object = None, noted: Noted | None = None
    ) -> CitedAnswer:
        """Return the answer to a question, once it is recorded as the chain's log demands.

        Args:
            filter: The question's `where` as a caller sends it: it names those fields alone that a caller may see.
            noted: As of `AnswerChain.answer`.

        Raises:
            DeadlineExceeded: There is none within the chain's deadline.
        """
        if filter is not None:
            question = replace(question, where=filter_node(filter, self.collection.filterable))
        return await self.open.answer(question, call, noted=noted, within_us=self.deadlines.whole)


class ServedRetrieving:
    """Passages of a collection that is served, in whatever build is searched when a search begins."""

    def __init__(self, collection: ServedCollection, mode: Mode) -> None:
        self._collection, self._mode = collection, mode

    def retrieve(self, query: str, k: int, *, where: Node | None = None, tenant: str | None = None) -> Retrieved:
        declared, mode = self._collection.declared, self._mode
        return self._collection.searched(
            lambda opened: CollectionRetrieving(
                declared,
                lambda: (opened.build, opened.index, opened.encoder, None if mode == "vectors" else opened.words()),
                mode,
            ).retrieve(query, k, where=where, tenant=tenant)
        )
