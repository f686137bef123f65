"""Of several turns of a server, the best of each figure; and of a server that has none, why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from starting import missing

Measured = TypeVar("Measured", bound=Any)


def best(found: Sequence[Measured], more: Collection[str]) -> Measured:
    """Return the best of several turns, each figure on its own: the largest of those in `more`, else the smallest.

    Args:
        found: Of one dataclass, of which all fields are figures or `None`, but for `note`.
    """
    figures = {}
    for name in (each.name for each in fields(found[0]) if each.name != "note"):
        known = [value for turn in found if (value := getattr(turn, name)) is not None]
        figures[name] = (max if name in more else min)(known) if known else None
    return replace(found[0], **figures, note=next((turn.note for turn in found if turn.note), ""))


def turns_of(
    kinds: Collection[str], measure: Callable[[str], Sequence[Measured]], nothing: Callable[..., Measured]
) -> dict[str, Sequence[Measured]]:
    """Return what `measure` finds of each kind of server.

    Args:
        nothing: Called with a `note` that says why, for a kind that is not installed or does not answer.
    """
    found: dict[str, Sequence[Measured]] = {}
    for kind in kinds:
        if why := missing(kind):
            found[kind] = [nothing(note=why)]
            continue
        try:
            found[kind] = measure(kind)
        except (RuntimeError, OSError) as error:
            found[kind] = [nothing(note=f"it did not answer: {error}")]
        print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    return found
