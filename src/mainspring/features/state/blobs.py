"""Online state of one entity in one view, and its encoding.

A state is columnar, so that reading it is slices and sums. Where it is one row of last values and nothing else, as most
are, its bytes are flat: `[since, visible, event, how many are null, value, value, ...]`; many such are read column by
column, in a few steps. Times are UTC epoch microseconds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.time import MINUTE

# Rows that became visible less than this before a state's position are kept as rows, so that a reader whose clock is
# behind by as much still reads exactly.
SETTLING = MINUTE

Spread = tuple[int, float, float, float]  # n, origin, sum of differences from the origin, M2


# The event of a candidate that stands for no row: it never expires, and all its values are null.
NO_EVENT = 1 << 62


class Candidates(msgspec.Struct, array_like=True):
    """Record-setting rows in the order they count: the current one, then those that are not visible yet.

    Of versions of facts: which row is the newest from when on; one whose facts all ended has none (`NO_EVENT`).
    """

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a last value


class Tiles(msgspec.Struct, array_like=True):
    """Merged rows of the settled past, one tile a hop that holds any. `starts` are in hops since the epoch."""

    starts: list[int]
    # One list a (measure, part), as `Layout.parts` orders them; null where a tile has nothing. A coded one
    # (`features.state.coded`) has one entry more.
    parts: list[list[Any]]


class Recent(msgspec.Struct, array_like=True):
    """Single rows, by visible time: those of the last moments, those that are not visible yet, and those that end."""

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a measure
    seq: list[int] = []  # the order of arrival, where it matters (`Layout.ranked`); else it is not stored
    gone: list[int | None] = []  # from when on each counts no more; not stored where all stay


class _Unranked(msgspec.Struct, array_like=True):
    visible: list[int]
    event: list[int]
    values: list[list[Any]]


class State(msgspec.Struct, array_like=True):
    since: int  # when the entity's first row became visible
    lasts: Candidates
    tiles: list[Tiles]  # one a hop, as `Layout.hops` orders them
    recent: Recent


_NESTED = b"\x94"  # how the bytes of a state that is not flat begin: an array of four

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(State).decode
decode_flat = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


def encode(state: State) -> bytes:
    recent, lasts = state.recent, state.lasts
    if lasts.values and len(lasts.visible) == 1 and not state.tiles:
        row = [column[0] for column in lasts.values]
        return _encode((state.since, lasts.visible[0], lasts.event[0], row.count(None), *row))
    if recent.seq or recent.gone:
        return _encode(state)
    unranked: Any = _Unranked(recent.visible, recent.event, recent.values)
    return _encode(State(state.since, state.lasts, state.tiles, unranked))


def decode(payload: bytes, slot: str) -> State:
    """Return the state in `payload`.

    Raises:
        Corrupt: It is no state.
    """
    try:
        if payload.startswith(_NESTED):
            return _decode(payload)
        since, visible, event, _, *row = decode_flat(payload)
        if not row or {type(since), type(visible), type(event)} != {int}:
            raise msgspec.ValidationError("it is neither a flat state nor another")
    except (msgspec.MsgspecError, ValueError) as error:
        raise damaged(slot, error) from error
    return State(since, Candidates([visible], [event], [[value] for value in row]), [], Recent([], [], []))


class DamagedState(Corrupt):
    """One entity's state cannot be read; others in the same store can."""


def damaged(slot: str, why: object) -> DamagedState:
    """Return the error for a payload that is no state of the view in `slot`."""
    return DamagedState(
        f"The online store holds a damaged state of {slot}: {why}.",
        fix=f"run `mainspring materialize {slot.partition('@')[0]} --rebuild`.",
    )
