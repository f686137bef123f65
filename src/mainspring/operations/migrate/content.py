"""Content of copied tables, and iteration over named parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from mainspring.core.errors import Conflict

Step = Callable[[float, float | None, str], None]  # done, total, note


class Content(msgspec.Struct, frozen=True):
    """Content of a table, independent of order: the number of rows, and the sum of their digests."""

    name: str
    rows: int
    digest: str


def one_by_one(names: Sequence[str], there: Sequence[str], *, place: str, setting: str, step: Step) -> Iterator[str]:
    """Yield the names, reporting each to `step`, if the target has no others.

    Args:
        place: Name of their container for messages: "the lake".
        setting: The profile's setting with its address.

    Raises:
        Conflict: The target has others.
    """
    others = sorted(set(there) - set(names))
    if others:
        raise Conflict(
            f"{place} of the target profile has {others}, which the source profile lacks.",
            fix=f"name an empty backend for `{setting}` in that profile.",
        )
    for number, name in enumerate(names):
        step(number, len(names), name)
        yield name
    step(len(names), len(names), "")
