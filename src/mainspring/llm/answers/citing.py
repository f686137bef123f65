"""Citations in a model's answer: marks such as [1], [2, 3] or [1-3]."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mainspring.llm.answers.model import Citation, Passage

_NUMBERS = r"\d{1,4}(?:\s*[-–,;]\s*\d{1,4})*"
_MARK = re.compile(rf"[ \t]*\[\s*(?:[Ss]ources?\s*)?({_NUMBERS})\s*\]")
_RANGE = re.compile(r"(\d+)\s*[-–]\s*(\d+)|(\d+)")

_IN_MARK = re.compile(r"[Sources\d\s,;–-]*")


def cited(reply: str, passages: Sequence[Passage]) -> tuple[str, tuple[Citation, ...], int]:
    """Return a reply with marks of known passages alone, each as "[1]", and no space around it; their citations; and
    how many marks were of none.

    Args:
        passages: Those that the model was shown, in the order of their numbers.
    """
    text, citations, unknown = cited_part(reply, passages, begins=True)
    return text.rstrip(), citations, unknown


def cited_part(reply: str, passages: Sequence[Passage], *, begins: bool) -> tuple[str, tuple[Citation, ...], int]:
    """Return the same of a part of a reply, with the space at its end.

    Args:
        begins: Whether nothing but space came before it.
    """
    parts, length, end = list[str](), 0, 0
    places: dict[int, list[int]] = {}
    unknown = 0
    for mark in _MARK.finditer(reply):
        before = _after_space(reply[end : mark.start()], begins and not length)
        parts.append(before)
        length += len(before)
        end = mark.end()
        numbers = _numbers(mark[1])
        known = [number for number in numbers if 1 <= number <= len(passages)]
        unknown += len(numbers) - len(known)
        space = mark[0][: len(mark[0]) - len(mark[0].lstrip(" \t"))] if known and (length or not begins) else ""
        parts.append(space)
        length += len(space)
        for number in known:
            places.setdefault(number, []).append(length)
            parts.append(f"[{number}]")
            length += len(parts[-1])
    parts.append(_after_space(reply[end:], begins and not length))
    citations = tuple(
        Citation(
            number=number,
            chunk=passages[number - 1].id,
            document=passages[number - 1].document,
            start=passages[number - 1].start,
            end=passages[number - 1].end,
            at=tuple(at),
        )
        for number, at in sorted(places.items())
    )
    return "".join(parts), citations, unknown


def begun_mark(text: str) -> int:
    """Return the place in a text from which on it is blank, or may be the beginning of a mark."""
    place = text.rfind("[")
    end = place if place >= 0 and _IN_MARK.fullmatch(text, place + 1) else len(text)
    return len(text[:end].rstrip())


def uncited(text: str) -> str:
    """Return a text without its marks."""
    return _MARK.sub("", text)


def _numbers(listed: str) -> list[int]:
    """Return the numbers of a mark, each once, in order."""
    found = dict[int, None]()
    for first, last, alone in _RANGE.findall(listed):
        if alone:
            found[int(alone)] = None
        elif int(first) <= int(last) <= int(first) + 100:
            found |= dict.fromkeys(range(int(first), int(last) + 1))
        else:
            found |= {int(first): None, int(last): None}
    return list(found)


def _after_space(text: str, first: bool) -> str:
    return text.lstrip() if first else text
