"""The online read of a view: states and an instant in, the features' values and statuses out."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.expr.types import dtype_of
from mainspring.core.schema import DType
from mainspring.features.layout import RANKED, Layout, WindowFeature
from mainspring.features.model import Status, hop
from mainspring.features.state.blobs import Candidates, Recent, State, damaged, decode, decode_flat
from mainspring.features.state.merging import merge, variance
from mainspring.features.state.sketches import distinct, quantile, top
from mainspring.features.types import default_of, feature_dtype, single

PRESENT, NULL, EXPIRED, MISSING = (
    status.value for status in (Status.PRESENT, Status.NULL, Status.EXPIRED, Status.MISSING)
)
Read = tuple[list[Any], list[str]]  # values and statuses, in the order of the view's features
Columns = tuple[list[list[Any]], list[list[str]]]  # the same of many entities, a list a feature


@dataclass(frozen=True)
class _Window:
    """The features of one window width: where their parts lie in the tiles of its hop."""

    width: int
    hop: int
    tiles: int  # index into State.tiles
    parts: tuple[tuple[int, str, int, bool], ...]  # measure, part, its list in the tiles, whether it may be NaN
    features: tuple[tuple[int, WindowFeature, bool, Any], ...]  # place in the view, feature, is Float32, default
    depths: dict[int, int]  # measure -> how many of the most frequent values are asked for


class EntityReader:
    """Reads the states of one view."""

    def __init__(self, layout: Layout) -> None:
        self._slot = layout.slot
        self._flat = not layout.windows
        self._ttl = min((last.ttl for last in layout.lasts if last.ttl is not None), default=None)
        order = {name: place for place, name in enumerate(layout.view.features)}
        self._count = len(order)
        self._lasts = [(order[last.name], last) for last in layout.lasts]
        self._windows = [
            _window(layout, width, order) for width in sorted({feature.window for feature in layout.windows})
        ]
        self._missing: Read = self._nothing(order, layout)

    def columns(self, payloads: Sequence[bytes | None], now: int) -> Columns:
        """Return what is known of many entities at `now`. Lists may be shared: they are to be read.

        Raises:
            Corrupt: A payload is no state of this view.
        """
        if self._flat and (found := self._all_present(payloads, now)) is not None:
            return found
        reads = [self.read(None if payload is None else decode(payload, self._slot), now) for payload in payloads]
        if not reads:
            return [[] for _ in range(self._count)], [[] for _ in range(self._count)]
        values, statuses = zip(*reads, strict=True)
        return [*map(list, zip(*values, strict=True))], [*map(list, zip(*statuses, strict=True))]

    def _all_present(self, payloads: Sequence[bytes | None], now: int) -> Columns | None:
        """Return the columns where every state is flat, and every value in it present; else nothing."""
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
                return [[value] for value in row], [[PRESENT]] * self._count
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
        return [*map(list, values)], [[PRESENT] * len(payloads)] * self._count

    def read(self, state: State | None, now: int) -> Read:
        """Return what is known at `now`, exactly, if `now` is not before the state's position less `SETTLING`."""
        if state is None or now < state.since:
            return self._missing
        values: list[Any] = [None] * self._count
        statuses = [NULL] * self._count
        try:
            if self._lasts:
                self._read_lasts(state.lasts, now, values, statuses)
            if self._windows:
                visible = bisect_right(state.recent.visible, now)
                for window in self._windows:
                    _read_window(window, state, visible, now, values, statuses)
        except (IndexError, TypeError) as error:
            raise damaged(self._slot, f"it is another view's ({error})") from error
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
            values[order[feature.name]] = default_of(layout.view, feature.name)
        return values, [MISSING] * len(order)


def _window(layout: Layout, width: int, order: dict[str, int]) -> _Window:
    step = hop(width)
    stored = layout.parts(layout.of_hop(step))
    features = [feature for feature in layout.windows if feature.window == width]
    dtypes = [
        DType.Boolean if measure.of is None else dtype_of(measure.of, layout.view.source.columns)
        for measure in layout.measures
    ]
    floats = {index for index, dtype in enumerate(dtypes) if dtype in (DType.Float32, DType.Float64)}
    return _Window(
        width,
        step,
        list(layout.hops).index(step),
        tuple(
            (measure, part, stored.index((measure, part)), measure in floats)
            for measure, part in layout.parts(features)
        ),
        tuple(
            (order[f.name], f, feature_dtype(layout.view, f.name) == DType.Float32, default_of(layout.view, f.name))
            for f in features
        ),
        {
            f.measure: max(g.nth for g in features if g.kind == "top" and g.measure == f.measure)
            for f in features
            if f.kind == "top"
        },
    )


def _read_window(window: _Window, state: State, visible: int, now: int, values: list[Any], statuses: list[str]) -> None:
    first = (now - window.width) // window.hop  # in hops since the epoch
    tiles = state.tiles[window.tiles]
    start = bisect_left(tiles.starts, first)
    rows = _inside(state.recent, visible, first * window.hop, now)
    merged: dict[tuple[int, str], Any] = {}
    values_of: dict[int, list[Any]] = {}
    for measure, part, column, floats in window.parts:
        if part.startswith(RANKED):
            singles = _rows_of(state.recent, measure, rows)
        elif (known := values_of.get(measure)) is not None:
            singles = known
        else:
            singles = values_of[measure] = _of(state.recent.values[measure], rows)
        merged[measure, part] = merge(part, tiles.parts[column][start:], singles, floats=floats)
    for measure, depth in window.depths.items():
        merged[measure, "values"] = top(merged[measure, "values"], depth)
    for place, feature, narrow, default in window.features:
        value = _value(feature, merged)
        if value is None:
            values[place] = default
        else:
            values[place] = single(value) if narrow else value
            statuses[place] = PRESENT


def _inside(recent: Recent, visible: int, low: int, now: int) -> range | list[int]:
    """Return the places of the rows that are visible and whose event is in `[low, now)`."""
    if not visible:
        return range(0)
    events = recent.event[:visible]
    if min(events) >= low and max(events) < now:
        return range(visible)
    return [row for row, event in enumerate(events) if low <= event < now]


def _of(values: list[Any], rows: range | list[int]) -> list[Any]:
    if isinstance(rows, range):
        return [value for value in values[: len(rows)] if value is not None]
    return [values[row] for row in rows if values[row] is not None]


def _rows_of(recent: Recent, measure: int, rows: range | list[int]) -> list[list[Any]]:
    values, event, seq = recent.values[measure], recent.event, recent.seq
    return [[event[row], seq[row], values[row]] for row in rows if values[row] is not None]


def _value(feature: WindowFeature, merged: dict[tuple[int, str], Any]) -> Any:
    kind, measure = feature.kind, feature.measure
    if kind in ("sum", "mean"):
        n = merged[measure, "n"]
        if not n:
            return None
        total = float(merged[measure, "sum"])
        return total if kind == "sum" else total / n
    value = merged[measure, feature.parts[0]]
    if kind in ("variance", "std"):
        spread = variance(value)
        return math.sqrt(spread) if kind == "std" and spread is not None else spread
    return _READ[kind](value, feature) if kind in _READ else value


def _nth(rows: Sequence[Any], nth: int) -> Any:
    return rows[nth - 1] if len(rows) >= nth else None


def _newest(state: Any, feature: WindowFeature) -> Any:
    row = state if feature.parts[0] == "newest" else _nth(state, feature.nth)
    return None if row is None else row[2]


_READ: dict[str, Callable[[Any, WindowFeature], Any]] = {
    "first": lambda row, _: None if row is None else row[2],
    "newest": _newest,
    "distinct": lambda hashes, _: distinct(hashes),
    "quantile": lambda bins, feature: quantile(bins, feature.share),
    "top": lambda values, feature: _nth(values, feature.nth),
}
