"""Provenance of what a conversation says: labels of its texts, and where the arguments of a tool's call come from.

Labels follow CaMeL (arXiv 2503.18813) and FIDES (arXiv 2505.23643), seen from a gateway: it knows what went into the
model, not what the model made of it. So whatever the model says after it read a text counts as said because of it, and
only an argument that stands word for word in what a trusted party wrote counts as theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mainspring.llm.guarding.characters import plain


class Label(StrEnum):
    """Source of a text, the most trusted first."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"  # the model itself
    RETRIEVED = "retrieved"
    TOOL = "tool"


TRUSTED = (Label.SYSTEM, Label.DEVELOPER, Label.USER)
TAINTED = frozenset({Label.RETRIEVED, Label.TOOL})
_RANK = {label: rank for rank, label in enumerate(Label)}


@dataclass(frozen=True, slots=True)
class Span:
    """A text of a conversation.

    Attributes:
        taint: Labels of all that had a part in it: its own, and for the model's words those of everything before.
    """

    text: str
    label: Label
    taint: frozenset[Label]


def labelled(texts: Iterable[tuple[str, Label]]) -> tuple[Span, ...]:
    """Return the spans of a conversation, in order."""
    read: frozenset[Label] = frozenset()
    found = []
    for text, label in texts:
        taint = frozenset({label})
        if label is Label.ASSISTANT:
            taint |= read
        read |= taint
        found.append(Span(text, label, taint))
    return tuple(found)


def taint(spans: Iterable[Span]) -> frozenset[Label]:
    """Return the labels of all that a model has read: the taint of what it says next."""
    return frozenset[Label]().union(*(span.taint for span in spans))


def lowered(role: str, declared: object) -> Label:
    """Return the label of a text by its role and what the caller declares of it: the less trusted of both.

    An unknown role or declaration is a tool's.
    """
    own = Label(role) if role in _RANK else Label.TOOL
    if declared is None:
        return own
    given = Label(declared) if isinstance(declared, str) and declared in _RANK else Label.TOOL
    return max(own, given, key=_RANK.__getitem__)


def leaves(value: Any) -> Iterator[str]:
    """Yield the texts and numbers of a JSON value, and the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield name
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def origins(arguments: Mapping[str, Any], spans: Sequence[Span]) -> dict[str, frozenset[Label]]:
    """Return where the value of each argument comes from.

    A text or number comes from the most trusted party that wrote it, as whole words; letters' case, white space and
    hidden characters aside. If nobody else wrote it, it is the assistant's, which may have made it of anything that it
    read. Empty texts, true, false and null come from nobody.
    """
    written = [(plain(span.text), span.label) for span in spans if span.label is not Label.ASSISTANT]
    return {name: frozenset(_origins(value, written)) for name, value in arguments.items()}


def _origins(value: Any, written: Sequence[tuple[str, Label]]) -> Iterator[Label]:
    for each in leaves(value):
        wanted = plain(each)
        if wanted:
            words = re.compile(rf"(?<![\w@./:+-]){re.escape(wanted)}(?![\w@/:+-]|\.\w)")
            by = {label for text, label in written if wanted in text and words.search(text)}
            trusted = [label for label in TRUSTED if label in by]
            yield from trusted[:1] or by or {Label.ASSISTANT}
