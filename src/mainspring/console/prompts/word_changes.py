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
_MOST_COMPARISONS = 4_000_000  # of words, in all
_MOST_WORDS, _MOST_LINES = 1_000, 3_000  # of a text, that are compared one by one: it takes the square of them


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one text, of the other, or of both."""

    kind: Kind
    text: str


def changes(before: str, after: str) -> list[Piece]:
    """Return the pieces of both texts, in order: without `added` they make `before`, without `removed` `after`."""
    found: list[Piece] = []
    for kind, text in _by_line(before, after):
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


def _by_line(before: str, after: str) -> Iterator[tuple[Kind, str]]:
    """Yield pieces, found line by line, and within the lines that differ word by word."""
    left = _MOST_COMPARISONS
    for kind, old, new in _differences(_LINE.findall(before), _LINE.findall(after), _MOST_LINES):
        if kind == "same":
            yield "same", old
            continue
        words = _WORD.findall(old), _WORD.findall(new)
        left -= len(words[0]) * len(words[1])
        for inner, removed, added in _differences(*words, _MOST_WORDS if left > 0 else 0):
            if inner == "same":
                yield "same", removed
                continue
            if removed:
                yield "removed", removed
            if added:
                yield "added", added


def _differences(old: Sequence[str], new: Sequence[str], most: int) -> Iterator[tuple[str, str, str]]:
    """Yield "same" or "other", and the texts of both; all as one where there are more than `most`."""
    if max(len(old), len(new)) > most:
        yield "same" if old == new else "other", "".join(old), "".join(new)
        return
    for tag, begin, end, from_, to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield "same" if tag == "equal" else "other", "".join(old[begin:end]), "".join(new[from_:to])
