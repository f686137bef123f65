"""Texts that leave while a model writes them: what left is the beginning of the answer, whatever follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mainspring.llm.answers.citing import begun_mark, cited_part, uncited
from mainspring.llm.answers.declaring import NOT_FOUND
from mainspring.llm.answers.model import Passage, Retrieved

_DECLINED = NOT_FOUND.casefold()
_AROUND = " .!*\"'"  # what may stand around it


@dataclass(frozen=True, slots=True)
class Step:
    """A part of an answer that is done.

    Attributes:
        answer: Id of the answer.
        at: Time of the question, UTC epoch microseconds.
    """

    answer: str
    at: int


@dataclass(frozen=True, slots=True)
class Rewritten(Step):
    """The question as a query, rewritten by the model."""

    query: str


@dataclass(frozen=True, slots=True)
class Searched(Step):
    """Passages that the search found for a query, before they are ordered anew."""

    query: str
    found: Retrieved


@dataclass(frozen=True, slots=True)
class Reranked(Step):
    """Passages in their new order."""

    found: Retrieved


@dataclass(frozen=True, slots=True)
class Said(Step):
    """The next piece of the answer's text."""

    text: str


Noted = Callable[[Step], None]


class Speaking:
    """Text of an answer while a model writes it.

    Nothing leaves before it is certain that the answer is one: it cites a passage, has a text beside that, and is no
    "NOT FOUND". Then all leaves but the space and the marks at its end that are not whole.

    Args:
        passages: Those that the model was shown, in the order of their numbers.
        say: Called with each piece that leaves.

    Attributes:
        heard: Text of the model so far, as it wrote it.
        said: What left.
    """

    def __init__(self, passages: Sequence[Passage], say: Callable[[str], None]) -> None:
        self._passages, self._say = passages, say
        self._heard: list[str] = []
        self._rest = ""  # of the text, whose marks are not read yet
        self._held = ""  # what has not left, with its marks read
        self._begun = self._cites = self._certain = False
        self._said: list[str] = []

    @property
    def heard(self) -> str:
        return "".join(self._heard)

    @property
    def said(self) -> str:
        return "".join(self._said)

    def hear(self, text: str) -> None:
        """Take the next piece of the model's text."""
        self._heard.append(text)
        rest = self._rest + text
        whole = begun_mark(rest)
        self._rest = rest[whole:]
        text, citations, _ = cited_part(rest[:whole], self._passages, begins=not self._begun)
        self._begun = self._begun or bool(text)
        self._cites = self._cites or bool(citations)
        self._held += text
        self._certain = self._certain or (self._cites and _answers(uncited(self._held)))
        if self._certain and (leaving := self._held.rstrip()):
            self._held = self._held[len(leaving) :]
            self._said.append(leaving)
            self._say(leaving)


def declines(bare: str) -> bool:
    """Return whether a text without marks says that the passages do not answer."""
    return bare.strip().strip(_AROUND).casefold() == _DECLINED


def _answers(bare: str) -> bool:
    """Return whether a text without marks is neither empty nor the beginning of one that declines."""
    text = bare.strip().strip(_AROUND)
    return bool(text) and not _DECLINED.startswith(text.casefold())
