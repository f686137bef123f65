"""Ids as people type them: the beginning suffices where no other newest record begins so."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.errors import Invalid

NEWEST = 1_000  # records whose ids may be abbreviated
_LENGTH = 26


def whole_id(kind: str, given: str, ids: Iterable[str]) -> str:
    """Return the id that begins as given; what is given itself if none does, for whoever looks it up to refuse.

    Args:
        kind: Such as "incident", for the error.
        ids: Of the newest records; not read if the id is whole.

    Raises:
        Invalid: Several begin so.
    """
    if not given or len(given) >= _LENGTH:
        return given
    alike = [each for each in ids if each.startswith(given.lower())]
    if len(alike) > 1:
        shown = ", ".join(alike[:3]) + (", ..." if alike[3:] else "")
        raise Invalid(f"{len(alike)} {kind}s begin with {given!r}: {shown}.", fix="write more of the id.")
    return alike[0] if alike else given
