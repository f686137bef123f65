"""The online read of a view: values and statuses of features from states and an instant.

Everything that depends on the definition alone is prepared when a reader is created, so that a read consists of slices
and sums.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from mainspring.core.schema import DType
from mainspring.features.layout import RANKED, Layout, WindowFeature
from mainspring.features.model import Status, hop
from mainspring.features.state.blobs import (
    Candidates,
    Merge,
    Recent,
    State,
    damaged,
    decode,
    decode_flat,
    merging,
    variance,
)
from mainspring.features.state.coded import most_frequent
from mainspring.features.state.sketches import distinct, quantile
from mainspring.features.types import single

PRESENT, NULL, EXPIRED, MISSING = (
    status.value for status in (Status.PRESENT, Status.NULL, Status.EXPIRED, Status.MISSING)
)
Read = tuple[list[Any], list[str]]  # values and statuses, in the order of the view's features
Columns = tuple[dict[str, list[Any]], dict[str, list[str]]]  # the same for many entities, by full name
_Parts = list[tuple[int, Merge]]  # index of the list in the tiles, and its merging function


class _Head:
    """The single rows of an entity that count at an instant."""

    def __init__(self, recent: Recent, now: int) -> None:
        self.recent = recent
        visible = bisect_right(recent.visible, now)
        self._events = recent.event[:visible]
        self._rows: Sequence[int] = range(visible)
        if recent.gone:
            self._rows = [row for row in self._rows if (gone := recent.gone[row]) is None or gone > now]
        self._oldest = min(self._events, default=0)
        self._newest = max(self._events, default=0)

    def within(self, low: int, now: int) -> Sequence[int]:
        """Return the indices of the rows whose event is in `[low, now)`."""
        if self._oldest >= low and self._newest < now:
            return self._rows
        events = self._events
        return [row for row in self._rows if low <= events[row] < now]

    def values(self, measure: int, rows: Sequence[int]) -> list[Any]:
        """Return a measure's values of some rows, without nulls."""
        values = self.recent.values[measure]
        return [value for row in rows if (value := values[row]) is not None]

    def ranked(self, measure: int, rows: Sequence[int]) -> list[list[Any]]:
        """Return the same values, each preceded by its event and order of arrival."""
        values, event, seq = self.recent.values[measure], self.recent.event, self.recent.seq
        return [[event[row], seq[row], values[row]] for row in rows if values[row] is not None]


class _WindowReader:
    """Reader of the windowed features of one width.

    Args:
        order: Feature name -> its index in the view.
    """

    def __init__(self, layout: Layout, width: int, order: dict[str, int]) -> None:
        self._width, self._hop = width, hop(width)
        self._tiles = list(layout.hops).index(self._hop)
        features = [feature for feature in layout.windows if feature.window == width]
        stored = layout.parts(layout.of_hop(self._hop))
        places: dict[tuple[int, str], int] = {}
        # (measure, parts of its values, parts of its rows in order); their merged values are listed in this order
        self._measures: list[tuple[int, _Parts, _Parts]] = []
        for measure in sorted({feature.measure for feature in features}):
            parts = [part for of, part in layout.parts(features) if of == measure]
            plain = [part for part in parts if not part.startswith(RANKED)]
            ranked = [part for part in parts if part.startswith(RANKED)]
            made: list[_Parts] = []
            for some in (plain, ranked):
                made.append([(stored.index((measure, part)), _merge(layout, features, measure, part)) for part in some])
                places.update({(measure, part): len(places) + n for n, part in enumerate(some)})
            self._measures.append((measure, made[0], made[1]))
        self._features = [
            (
                order[feature.name],
                _value(feature, [places[feature.measure, part] for part in feature.parts]),
                layout.dtype(feature.name) == DType.Float32,
                layout.default(feature.name),
            )
            for feature in features
        ]

    def read(self, state: State, head: _Head, now: int, values: list[Any], statuses: list[str]) -> None:
        """Write the features' values and statuses to their indices."""
        first = (now - self._width) // self._hop  # in hops since the epoch
        tiles = state.tiles[self._tiles]
        start = bisect_left(tiles.starts, first)
        rows = head.within(first * self._hop, now)
        merged: list[Any] = []
        for measure, plain, ranked in self._measures:
            if plain:
                singles = head.values(measure, rows) if rows else []
                merged += [merge(tiles.parts[column][start:], singles) for column, merge in plain]
            if ranked:
                ordered = head.ranked(measure, rows) if rows else []
                merged += [merge(tiles.parts[column][start:], ordered) for column, merge in ranked]
        for place, value_of, narrow, default in self._features:
            value = value_of(merged)
            if value is None:
                values[place] = default
            else:
                values[place] = single(value) if narrow else value
                statuses[place] = PRESENT


def _merge(layout: Layout, features: Sequence[WindowFeature], measure: int, part: str) -> Merge:
    merge = merging(part, floats=layout.measured[measure] in (DType.Float32, DType.Float64))
    if part != "values":
        return merge
    depth = max(feature.nth for feature in features if feature.measure == measure and feature.kind == "top")
    return lambda tiles, rows: most_frequent(tiles, rows, depth)


def _value(feature: WindowFeature, places: Sequence[int]) -> Callable[[list[Any]], Any]:
    """Return the function that computes a feature's value from its merged parts at these indices."""
    if len(places) == 2:
        n, total = places
        if feature.kind == "sum":
            return lambda merged: float(merged[total]) if merged[n] else None
        return lambda merged: float(merged[total]) / merged[n] if merged[n] else None
    (place,) = places
    if feature.kind not in _READ:
        return itemgetter(place)
    read = _READ[feature.kind]
    return lambda merged: read(merged[place], feature)


def _nth(rows: Sequence[Any], nth: int) -> Any:
    return rows[nth - 1] if len(rows) >= nth else None


def _newest(state: Any, feature: WindowFeature) -> Any:
    row = state if feature.parts[0] == "newest" else _nth(state, feature.nth)
    return None if row is None else row[2]


def _deviation(spreads: Any, _: WindowFeature) -> float | None:
    spread = variance(spreads)
    return None if spread is None else math.sqrt(spread)


_READ: dict[str, Callable[[Any, WindowFeature], Any]] = {
    "variance": lambda spreads, _: variance(spreads),
    "std": _deviation,
    "first": lambda row, _: None if row is None else row[2],
    "newest": _newest,
    "distinct": lambda hashes, _: distinct(hashes),
    "quantile": lambda bins, feature: quantile(bins, feature.share),
    "top": lambda values, feature: _nth(values, feature.nth),
}


class EntityReader:
    """Reader of the states of one view."""

    def __init__(self, layout: Layout) -> None:
        self._slot = layout.slot
        self._flat = not layout.windows
        self._ttl = min((last.ttl for last in layout.lasts if last.ttl is not None), default=None)
        order = {name: place for place, name in enumerate(layout.view.features)}
        self._count = len(order)
        self._names = [f"{layout.view.name}.{name}" for name in order]
        self._lasts = [(order[last.name], last) for last in layout.lasts]
        self._windows = [
            _WindowReader(layout, width, order) for width in sorted({feature.window for feature in layout.windows})
        ]
        self._missing: Read = self._nothing(order, layout)

    def columns(self, payloads: Sequence[bytes | None], now: int) -> Columns:
        """Return the features of many entities at `now`. Lists may be shared, so they must not be changed.

        Raises:
            Corrupt: A payload is not a state of this view.
        """
        if self._flat and (found := self._all_present(payloads, now)) is not None:
            return found
        return self._columns(
            [self.read(None if payload is None else decode(payload, self._slot), now) for payload in payloads]
        )

    def columns_each(self, payloads: Sequence[bytes | None], at: Sequence[int]) -> Columns:
        """Return the features of many entities, each at its own instant; equal payloads are decoded once.

        Raises:
            Corrupt: A payload is not a state of this view.
        """
        states = {payload: decode(payload, self._slot) for payload in dict.fromkeys(payloads) if payload is not None}
        return self._columns(
            [
                self.read(None if payload is None else states[payload], now)
                for payload, now in zip(payloads, at, strict=True)
            ]
        )

    def _columns(self, reads: list[Read]) -> Columns:
        if not reads:
            return {name: [] for name in self._names}, {name: [] for name in self._names}
        if len(reads) == 1:
            ((one, of_one),) = reads
            return self._by_name([value] for value in one), self._by_name([status] for status in of_one)
        values, statuses = zip(*reads)  # noqa: B905  (it costs time)
        return self._by_name(map(list, zip(*values))), self._by_name(map(list, zip(*statuses)))  # noqa: B905

    def _present(self, rows: int) -> dict[str, list[str]]:
        """Return a shared list of PRESENT."""
        present = [PRESENT] * rows
        return dict.fromkeys(self._names, present)

    def _by_name(self, columns: Iterable[list[Any]]) -> dict[str, list[Any]]:
        return dict(zip(self._names, columns))  # noqa: B905  (it costs time)

    def _all_present(self, payloads: Sequence[bytes | None], now: int) -> Columns | None:
        """Return the columns if every state is flat and all its values are present; else nothing."""
        try:
            if len(payloads) == 1:
                since, _, event, null, *row = decode_flat(payloads[0])  # type: ignore[arg-type]
                if (
                    since > now
                    or null
                    or len(row) != self._count
                    or (self._ttl is not None and now - event > self._ttl)
                ):
                    return None
                found = {name: [value] for name, value in zip(self._names, row)}  # noqa: B905  (it costs time)
                return found, self._present(1)
            rows = map(decode_flat, payloads)  # type: ignore[arg-type]  # null is a TypeError
            sinces, _, events, nulls, *values = zip(*rows, strict=True)
            if (
                max(sinces) > now
                or any(nulls)
                or len(values) != self._count
                or (self._ttl is not None and now - min(events) > self._ttl)
            ):
                return None
        except (TypeError, ValueError, msgspec.MsgspecError):
            return None
        return self._by_name(map(list, values)), self._present(len(payloads))

    def read(self, state: State | None, now: int) -> Read:
        """Return the features at `now`, exactly, if `now` is not before the state's position less `SETTLING`."""
        if state is None or now < state.since:
            return self._missing
        values: list[Any] = [None] * self._count
        statuses = [NULL] * self._count
        try:
            if self._lasts:
                self._read_lasts(state.lasts, now, values, statuses)
            if self._windows:
                head = _Head(state.recent, now)
                for window in self._windows:
                    window.read(state, head, now, values, statuses)
        except (IndexError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._slot, f"it is another view's, or broken ({error})") from error
        return values, statuses

    def _read_lasts(self, rows: Candidates, now: int, values: list[Any], statuses: list[str]) -> None:
        row = bisect_right(rows.visible, now) - 1
        age = now - rows.event[row]
        for place, last in self._lasts:
            if last.ttl is not None and age > last.ttl:
                statuses[place] = EXPIRED
            else:
                value = rows.values[last.column][row]
                if value is not None:
                    values[place] = value
                    statuses[place] = PRESENT

    def _nothing(self, order: dict[str, int], layout: Layout) -> Read:
        values: list[Any] = [None] * len(order)
        for feature in layout.windows:
            values[order[feature.name]] = layout.default(feature.name)
        return values, [MISSING] * len(order)
