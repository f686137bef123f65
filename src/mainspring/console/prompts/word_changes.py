"""Changes between two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from markupsafe import Markup

Kind = Literal["same", "removed", "added"]
_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MOST = 4_000  # words of a text that are compared one by one; longer ones line by line


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one text, of the other, or of both."""

    kind: Kind
    text: str


def changes(before: str, after: str) -> list[Piece]:
    """Return the pieces of both texts, in order: without `added` they make `before`, without `removed` `after`."""
    split = _WORD if max(len(before), len(after)) <= 6 * _MOST else _LINE
    old, new = split.findall(before), split.findall(after)
    found: list[Piece] = []
    for kind, text in _pieces(old, new):
        if found and found[-1].kind == kind:
            found[-1] = Piece(kind, found[-1].text + text)
        else:
            found.append(Piece(kind, text))
    return found


def marked(pieces: Sequence[Piece], without: Kind) -> Markup:
    """Return one of the two texts with what is its own alone marked.

    Args:
        without: The kind of the other text's own pieces.
    """
    own = Markup("<del>{}</del>") if without == "added" else Markup("<ins>{}</ins>")
    shown = Markup("")
    for each in pieces:
        if each.kind == "same":
            shown += Markup("{}").format(each.text)
        elif each.kind != without:
            shown += own.format(each.text)
    return shown


def _pieces(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[Kind, str]]:
    for tag, begin, end, from_, to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "".join(old[begin:end])
            continue
        if end > begin:
            yield "removed", "".join(old[begin:end])
        if to > from_:
            yield "added", "".join(new[from_:to])
