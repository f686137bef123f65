"""Numbers of events, as the event of an erasure names them: `0 2-5 9`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

Run = tuple[int, int]  # first and last

_NAMED = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")


def runs(numbers: Iterable[int]) -> list[Run]:
    """Return ascending numbers as first and last of each run without gaps."""
    found: list[Run] = []
    for number in numbers:
        add_run(found, number, number)
    return found


def add_run(found: list[Run], first: int, last: int) -> None:
    """Append a run, as part of the last one if it continues that."""
    if found and found[-1][1] == first - 1:
        found[-1] = (found[-1][0], last)
    else:
        found.append((first, last))


def named(numbers: Iterable[int]) -> str:
    """Return ascending numbers as text."""
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs(numbers))


def read_named(text: str) -> list[Run]:
    """Return the runs in a text of `named`; what is none is left out."""
    found = filter(None, map(_NAMED.fullmatch, text.split(" ")))
    return [(int(each[1]), int(each[2] or each[1])) for each in found]


def outside(numbers: Sequence[int], of: Iterable[Run]) -> Iterator[int]:
    """Yield those of ascending numbers that are in no run."""
    left, last = sorted(of, reverse=True), -1
    for number in numbers:
        while left and left[-1][0] <= number:
            last = max(last, left.pop()[1])
        if number > last:
            yield number
