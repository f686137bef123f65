"""Outline of a plain text: words, sentences and paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mainspring.vectors.chunking.model import BLOCK, SENTENCE, Outline

# A word with the blanks after it, up to the end of its line. Ideographs and kana are words of one character.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_ATOM = re.compile(rf"(?:[{_CJK}]|[^\s{_CJK}]+)[^\S\n]*\n?|[^\S\n]+\n?|\n")
_SENTENCE = re.compile(r"""[.!?…]["'”’)\]]*(?:[^\S\n]+\n?|\n)(?=[^a-z\s])|[。！？][」』”]?[^\S\n]*\n?""")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_LONGEST = 100  # characters of an atom: longer words are no words


def outline_text(text: str) -> Outline:
    """Return the outline of a text without markup."""
    return Outline(edges(text), ((0, ()),), breaks(text))


def outline_words(text: str) -> Outline:
    """Return the outline of a text of which nothing but words is kept together."""
    return Outline(edges(text), ((0, ()),), {})


def breaks(text: str) -> dict[int, int]:
    """Return the ends of sentences and paragraphs, with their ranks."""
    found = dict.fromkeys((match.end() for match in _SENTENCE.finditer(text)), SENTENCE)
    return found | dict.fromkeys((match.end() for match in _PARAGRAPH.finditer(text)), BLOCK)


def edges(text: str, start: int = 0, end: int | None = None, also: Iterable[int] = ()) -> list[int]:
    """Return the ends of the atoms of a part of a text, in order.

    Args:
        also: Offsets at which an atom ends in any case.
    """
    end = len(text) if end is None else end
    found = {match.end() for match in _ATOM.finditer(text, start, end)}
    found.update(offset for offset in also if start < offset <= end)
    ordered: list[int] = []
    before = start
    for edge in sorted(found):
        ordered += range(before + _LONGEST, edge, _LONGEST)
        ordered.append(edge)
        before = edge
    return ordered
