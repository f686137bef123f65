"""Online state of one entity in one view: its encoding, and the merging of its parts on read.

A state is columnar, so that a read consists of slices and sums. Most states are a single row of last values; their
bytes are flat: `[since, visible, event, number of nulls, value, value, ...]`, and many of them are read column by
column in a few steps. Others are stored as `[since, [candidates, single rows], tiles]`, where an instant in `visible`
is the distance from the one before it, and one in `event` the distance from its row's `visible`: most take a few bytes.
Before 0.2 they were stored as `State`, which can still be read. Rows may be appended to a state (`Grown`). Tiles and
single rows are merged as by `features.state.sql` for the offline read. Times are UTC epoch microseconds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, compress
from operator import sub
from typing import Any, NamedTuple

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.time import MINUTE
from mainspring.features.layout import RANKED, SKETCHES
from mainspring.features.state import sketches

# Rows that became visible less than this before a state's position stay single rows, so that a reader whose clock is
# behind by as much still reads exactly.
SETTLING = MINUTE

Spread = tuple[int, float, float, float]  # n, origin, sum of differences from the origin, M2


# The event of a candidate without a row: it never expires, and all its values are null.
NO_EVENT = 1 << 62
# Merges one part over some tiles and the non-null values of some single rows; no extreme of nothing is `None`. Where
# the order of rows matters (`oldest`, `newest`) a row is a list of event, order of arrival and value.
Merge = Callable[[Sequence[Any], Sequence[Any]], Any]


class Candidates(msgspec.Struct, array_like=True):
    """Record-setting rows in the order in which they count: the current one, then those that are not visible yet.

    For versions of facts: the newest row from each instant on; after the end of all facts there is none (`NO_EVENT`).
    """

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a last value


class Tiles(msgspec.Struct, array_like=True):
    """Merged rows of the settled past, one tile per hop with rows. `starts` are in hops since the epoch."""

    starts: list[int]
    # One list a (measure, part), as `Layout.parts` orders them; null where a tile has nothing. A coded one
    # (`features.state.coded`) has one entry more.
    parts: list[list[Any]]


class Recent(msgspec.Struct, array_like=True):
    """Single rows by visible time: recent ones, ones that are not visible yet, and ones that were superseded."""

    visible: list[int]
    event: list[int]
    values: list[list[Any]]  # one list a measure
    seq: list[int] = []  # the order of arrival if it matters (`Layout.ranked`); else not stored
    gone: list[int | None] = []  # instant from which each no longer counts; not stored if none ends


class State(msgspec.Struct, array_like=True):
    since: int  # when the entity's first row became visible
    lasts: Candidates
    tiles: list[Tiles]  # one per hop, in the order of `Layout.hops`
    recent: Recent


class _Rows(msgspec.Struct, array_like=True):
    lasts: Candidates
    recent: Recent


class _Stored(msgspec.Struct, array_like=True):
    since: int
    rows: _Rows
    tiles: list[Tiles]


# First bytes of states that are not flat.
_STORED = b"\x93"  # an array of three
_UNCODED = b"\x94"  # an array of four, in which instants are not coded
_GROWN = b"\xc1"  # no value of MessagePack

_ROWS = b"\xdd"  # an array, whose length follows in four bytes
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
_decode_any = msgspec.msgpack.Decoder().decode
_decode_uncoded = msgspec.msgpack.Decoder(State).decode
decode_flat = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


def encode(state: State) -> bytes:
    recent, lasts = state.recent, state.lasts
    if lasts.values and len(lasts.visible) == 1 and not state.tiles:
        row = [column[0] for column in lasts.values]
        return _encode((state.since, lasts.visible[0], lasts.event[0], row.count(None), *row))
    standing = [_distances(lasts.visible), list(map(sub, lasts.visible, lasts.event)), lasts.values]
    singles = _trimmed(recent, _distances(recent.visible), list(map(sub, recent.visible, recent.event)))
    return _encode([state.since, [standing, singles], state.tiles])


def _distances(visible: list[int]) -> list[int]:
    return [*visible[:1], *map(sub, visible[1:], visible)] if len(visible) > 1 else visible


def _instants(visible: list[int], ages: list[int]) -> tuple[list[int], list[int]]:
    visible = list(accumulate(visible)) if len(visible) > 1 else visible
    return visible, list(map(sub, visible, ages))


def _trimmed(recent: Recent, visible: list[int], event: list[int]) -> list[Any]:
    """Return single rows in the form in which they are stored: without empty lists at the end."""
    if recent.gone:
        return [visible, event, recent.values, recent.seq, recent.gone]
    return [visible, event, recent.values, recent.seq] if recent.seq else [visible, event, recent.values]


class Grown(NamedTuple):
    """A state with appended rows, each `(visible - floor, visible - event, counts, value, ...)`: last
    values, then measures, then the order of arrival if that matters.

    Args:
        floor: Instant from which no row has settled, and at which the entity has been seen.
        newest: Visible time of the latest row, or an instant before.
        standing: Visible time of the last candidate.
        size: Number of bytes of the state without the rows.
        rows: Number of appended rows.
        ordered: Whether none of them is visible before an earlier one.
        content: Bytes of the state and of the rows.
    """

    floor: int
    newest: int
    standing: int
    size: int
    rows: int
    ordered: bool
    content: bytes

    @classmethod
    def of(cls, payload: bytes, position: int) -> Grown | None:
        """Open the state in `payload` for more rows; return `None` if it is damaged.

        Args:
            position: Its position in the store.
        """
        try:
            if payload.startswith(_GROWN):
                return _grown(payload)
            state = decode(payload, "")
        except (struct.error, Corrupt):
            return None
        latest = max(state.recent.visible[-1:] + state.lasts.visible[-1:], default=state.since)
        standing = state.lasts.visible[-1] if state.lasts.visible else state.since
        return cls(max(state.since, position - SETTLING), latest, standing, len(payload), 0, True, payload)

    def state(self, slot: str) -> State:
        """Return the state with all rows.

        Raises:
            Corrupt, IndexError, TypeError, ValueError: It is damaged.
        """
        if self.content.startswith(_GROWN):
            raise ValueError("rows were appended to a state with appended rows")
        state, appended = decode(self.content[: self.size], slot), self.content[self.size :]
        if self.rows > len(appended):
            raise ValueError(f"{self.rows} rows in {len(appended)} bytes")
        rows = _decode_any(_ROWS + self.rows.to_bytes(4, "big") + appended)
        if not rows:
            return state
        distances, ages, counts, *values = zip(*rows, strict=True)
        if {*map(type, distances), *map(type, ages)} != {int}:
            raise TypeError("an instant is no integer")
        lasts, recent = state.lasts, state.recent
        visible = [self.floor + distance for distance in distances]
        event = list(map(sub, visible, ages))
        if lasts.values:
            records = list(compress(range(len(rows)), counts))
            lasts.visible += [visible[row] for row in records]
            lasts.event += [event[row] for row in records]
            for column, new in zip(lasts.values, values, strict=False):
                column.extend(new[row] for row in records)
        if recent.values:
            recent.visible += visible
            recent.event += event
            values = values[len(lasts.values) :]
            for column, new in zip(recent.values, values, strict=False):
                column.extend(new)
            if len(values) > len(recent.values):
                recent.seq += values[-1]
            if not self.ordered:
                order = sorted(range(len(recent.visible)), key=recent.visible.__getitem__)
                for unordered in (recent.visible, recent.event, *recent.values, *([recent.seq] if recent.seq else [])):
                    unordered[:] = [unordered[row] for row in order]
        return state


_GROWN_HEAD = struct.Struct(">qqqII?")


def _grown(payload: bytes) -> Grown:
    return Grown._make((*_GROWN_HEAD.unpack_from(payload, 1), payload[1 + _GROWN_HEAD.size :]))


def grown(*head: int, content: list[bytes]) -> bytes:
    """Return the bytes of a `Grown` with these fields, and its content in parts."""
    return b"".join((_GROWN, _GROWN_HEAD.pack(*head), *content))


def decode(payload: bytes, slot: str) -> State:
    """Return the state in `payload`.

    Raises:
        Corrupt: It is not a state.
    """
    try:
        if payload.startswith(_STORED):
            stored = _decode(payload)
            lasts, recent = stored.rows.lasts, stored.rows.recent
            if lasts.visible:
                lasts.visible, lasts.event = _instants(lasts.visible, lasts.event)
            if recent.visible:
                recent.visible, recent.event = _instants(recent.visible, recent.event)
            return State(stored.since, lasts, stored.tiles, recent)
        if payload.startswith(_GROWN):
            return _grown(payload).state(slot)
        if payload.startswith(_UNCODED):
            return _decode_uncoded(payload)
        since, visible, event, _, *row = decode_flat(payload)
        if not row or {type(since), type(visible), type(event)} != {int}:
            raise msgspec.ValidationError("it is neither a flat state nor another")
    except (msgspec.MsgspecError, IndexError, TypeError, ValueError, struct.error) as error:
        raise damaged(slot, error) from error
    return State(since, Candidates([visible], [event], [[value] for value in row]), [], Recent([], [], []))


class DamagedState(Corrupt):
    """One entity's state is damaged; others in the same store can be read."""


def damaged(slot: str, why: object) -> DamagedState:
    """Return the error for a payload that is not a state of the view in `slot`."""
    return DamagedState(
        f"The online store contains a damaged state of {slot}: {why}.",
        fix=f"run `mainspring materialize {slot.partition('@')[0]} --rebuild`.",
    )


def merging(part: str, *, floats: bool) -> Merge:
    """Return the merging function of a part.

    Args:
        floats: Whether the values may be NaN, which sorts above all others.
    """
    if part in ("min", "max"):
        return _EXTREMES[part, floats]
    if part.startswith("newest_"):
        return partial(_newest, depth=int(part.partition("_")[2]))
    return _MERGES[part]


def _count(tiles: Sequence[int], rows: Sequence[Any]) -> int:
    return sum(tiles) + len(rows)


def _sum(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return sum(tiles) + sum(rows)


def _spreads(tiles: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    return _known(tiles, [(1, float(value), 0.0, 0.0) for value in rows])


def _known(tiles: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    values = [value for value in tiles if value is not None]
    values += rows
    return values


# Also for rows, which differ in their order of arrival.
def _least(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return min(_known(tiles, rows), default=None)


def _greatest(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return max(_known(tiles, rows), default=None)


# A sum is NaN where any value is, and refuses nulls. Where it is NaN for another reason (inf - inf), or where there are
# nulls, it has only taken longer.


def _least_float(tiles: Sequence[Any], rows: Sequence[Any]) -> float | None:
    values, ordered = _floats(tiles, rows)
    if not ordered:
        values = [value for value in values if not math.isnan(value)] or [math.nan]
    return min(values, default=None)


def _greatest_float(tiles: Sequence[Any], rows: Sequence[Any]) -> float | None:
    values, ordered = _floats(tiles, rows)
    if not ordered and any(map(math.isnan, values)):
        return math.nan
    return max(values, default=None)


def _floats(tiles: Sequence[Any], rows: Sequence[Any]) -> tuple[list[float], bool]:
    """Return the values without nulls, and whether none is NaN; the flag may be False although none is."""
    values = [*tiles, *rows]
    try:
        return values, not math.isnan(sum(values))
    except TypeError:
        values = _known(tiles, rows)
        return values, not math.isnan(sum(values))


def _newest(tiles: Sequence[Any], rows: Sequence[Any], depth: int) -> list[Any]:
    newest: list[Any] = []
    for tile in reversed(tiles):  # no event of a tile is newer than one of a later tile
        if len(newest) >= depth:
            break
        newest += tile or ()
    newest += rows
    return sorted(newest, reverse=True)[:depth]


_MERGES: dict[str, Merge] = {
    "n": _count,
    "sum": _sum,
    "spread": _spreads,
    "oldest": _least,
    "newest": _greatest,
    "bins": sketches.merge_bins,
    "hashes": sketches.merge_hashes,
    "values": sketches.merge_values,
}
_EXTREMES: dict[tuple[str, bool], Merge] = {
    ("min", False): _least,
    ("max", False): _greatest,
    ("min", True): _least_float,
    ("max", True): _greatest_float,
}


def as_stored(part: str, values: list[Any]) -> list[Any]:
    """Return a column of tiles' parts from SQL (`features.state.sql`) in the form of a state."""
    if part in SKETCHES:
        return [sketches.packed(part, value) for value in values]
    if part in RANKED:
        return [None if value is None else list(value.values()) for value in values]
    if part.startswith(RANKED):
        return [None if value is None else [list(row.values()) for row in value] for value in values]
    return values


def variance(spreads: Sequence[Spread]) -> float | None:
    """Return the population variance of merged spreads; see `features.state.sql.spread_sql`."""
    if not spreads:
        return None
    base = spreads[0][1]
    n, total = 0, 0.0
    for count, origin, shift, _ in spreads:
        n += count
        total += shift + count * (origin - base)
    mean, m2 = total / n, 0.0
    for count, origin, shift, own in spreads:
        apart = (origin - base) + shift / count - mean
        m2 += own + count * (apart * apart)
    return m2 / n
