"""What is stored online of one entity in one view, and its bytes.

A state is columnar, so that reading it is slices and sums. Times are UTC epoch microseconds.
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


class Candidates(msgspec.Struct, array_like=True):
    """Record-setting rows in the order they count: the current one, then those that are not visible yet."""

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a last value


class Tiles(msgspec.Struct, array_like=True):
    """Merged rows of the settled past, one tile a hop that holds any. `starts` are in hops since the epoch."""

    starts: list[int]
    parts: list[list[Any]]  # one list a (measure, part), as `Layout.parts` orders them; null where a tile has nothing


class Recent(msgspec.Struct, array_like=True):
    """Single rows, by visible time: those of the last moments and those that are not visible yet."""

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a measure
    seq: list[int] = []  # the order of arrival, where it matters (`Layout.ranked`); else it is not stored


class _Unranked(msgspec.Struct, array_like=True):
    visible: list[int]
    event: list[int]
    values: list[list[Any]]


class State(msgspec.Struct, array_like=True):
    since: int  # when the entity's first row became visible
    lasts: Candidates
    tiles: list[Tiles]  # one a hop, as `Layout.hops` orders them
    recent: Recent


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(State).decode


def encode(state: State) -> bytes:
    recent = state.recent
    if recent.seq:
        return _encode(state)
    unranked: Any = _Unranked(recent.visible, recent.event, recent.values)
    return _encode(State(state.since, state.lasts, state.tiles, unranked))


def decode(payload: bytes, slot: str) -> State:
    """Return the state in `payload`.

    Raises:
        Corrupt: It is no state.
    """
    try:
        return _decode(payload)
    except msgspec.MsgspecError as error:
        raise Corrupt(
            f"The online store holds a damaged state of {slot}: {error}.",
            fix=f"run `mainspring materialize {slot.partition('@')[0]} --rebuild`.",
        ) from error
