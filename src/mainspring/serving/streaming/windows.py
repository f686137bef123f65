"""Windows and sessions over the earlier events of a key in the stream, exact to the microsecond.

A value depends only on the events before it in the partition, and on the watermark there. `floor` is the instant from
which events are certain to be kept: for an event that is not late every window begins after it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.expr import Node
from mainspring.core.expr.evaluate import Vector, evaluate
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import DType, Schema
from mainspring.core.time import SECOND
from mainspring.features.model import Aggregation
from mainspring.serving.streaming.declaring import Session

MOST_EVENTS = 10_000  # of one key; its oldest are left out of windows beyond that


class Events(msgspec.Struct, array_like=True):
    """Earlier events of a key, by event time and then by arrival. `values` has one list a measure."""

    times: list[int]
    values: list[list[Any]]

    def add(self, at: int, values: Sequence[Any]) -> None:
        """Insert an event, and drop the oldest if there are very many."""
        place = bisect_right(self.times, at)
        self.times.insert(place, at)
        for column, value in zip(self.values, values, strict=True):
            column.insert(place, value)
        if len(self.times) > MOST_EVENTS:
            self._drop(1)

    def trim(self, floor: int) -> None:
        """Drop the events before an instant."""
        if self.times and self.times[0] < floor:
            self._drop(bisect_left(self.times, floor))

    def _drop(self, count: int) -> None:
        del self.times[:count]
        for column in self.values:
            del column[:count]


class Windows:
    """The windows of one endpoint: measures of an event, and values at an event.

    Args:
        schema: Columns of the source.
    """

    def __init__(self, windows: Mapping[str, Aggregation | Session], schema: Schema) -> None:
        self._schema = schema
        self._measures: list[Aggregation] = []  # whose `of` and `where` are evaluated
        self._reads: list[Callable[[Events, int, int], tuple[Any, ...]]] = []
        self.names: list[str] = []
        self.types: dict[str, DType] = {}
        self.reach_us = 0  # the longest window or session
        # States tell by it whether their events were kept for these windows.
        measures = [(each.of, each.where) for each in windows.values() if isinstance(each, Aggregation)]
        self.digest = hashlib.blake2b(msgspec.json.encode(measures), digest_size=6).digest()
        for name, window in windows.items():
            if isinstance(window, Session):
                self._add({f"{name}_count": DType.Int64, f"{name}_s": DType.Float64}, _session(window))
                self.reach_us = max(self.reach_us, window.longest_us)
            else:
                assert window.window is not None
                self._measures.append(window)
                self._add({name: _dtype(window, schema)}, _window(window, len(self._measures) - 1))
                self.reach_us = max(self.reach_us, window.window)

    def _add(self, types: dict[str, DType], read: Callable[[Events, int, int], tuple[Any, ...]]) -> None:
        self.names += types
        self.types |= types
        self._reads.append(read)

    def nothing(self) -> Events:
        """Return the events of a new key."""
        return Events([], [[] for _ in self._measures])

    @property
    def reads(self) -> set[str]:
        """Columns that the measures read."""
        nodes = [node for each in self._measures for node in (each.of, each.where) if node is not None]
        return {name for node in nodes for name in columns_of(node)}

    def measures(self, vectors: Mapping[str, Vector], rows: int) -> list[list[Any]]:
        """Return for each row what each measure keeps of it; null where a filter is not true."""
        columns = [self._measure(each, vectors, rows) for each in self._measures]
        return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(rows)]

    def _measure(self, window: Aggregation, vectors: Mapping[str, Vector], rows: int) -> list[Any]:
        def values(node: Node | None) -> list[Any]:
            return [True] * rows if node is None else evaluate(node, vectors, self._schema, rows).to_list()

        of, where = values(window.of), values(window.where)
        return [value if counts else None for value, counts in zip(of, where, strict=True)]

    def at(self, events: Events, at: int, floor: int) -> list[Any]:
        """Return the values of `names` for an event at an instant."""
        return [value for read in self._reads for value in read(events, at, floor)]


def _dtype(window: Aggregation, schema: Schema) -> DType:
    if window.kind in ("count", "distinct"):
        return DType.Int64
    if window.kind in ("min", "max", "first", "newest") and window.of is not None:
        return dtype_of(window.of, schema)
    return DType.Float64


def _window(window: Aggregation, measure: int) -> Callable[[Events, int, int], tuple[Any, ...]]:
    value_of, width, default = _AGGREGATES[window.kind], window.window or 0, window.default

    def read(events: Events, at: int, floor: int) -> tuple[Any, ...]:
        low, high = bisect_left(events.times, max(at - width, floor)), bisect_left(events.times, at)
        value = value_of([each for each in events.values[measure][low:high] if each is not None])
        return (default if value is None else value,)

    return read


def _session(session: Session) -> Callable[[Events, int, int], tuple[Any, ...]]:
    def read(events: Events, at: int, floor: int) -> tuple[Any, ...]:
        times, low, after = events.times, max(at - session.longest_us, floor), at
        end = place = bisect_left(times, at)
        while place and times[place - 1] >= low and after - times[place - 1] <= session.gap_us:
            place -= 1
            after = times[place]
        return end - place, (at - after) / SECOND if place < end else None

    return read


def _variance(values: Sequence[Any]) -> float | None:
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / len(values)


def _std(values: Sequence[Any]) -> float | None:
    found = _variance(values)
    return None if found is None else math.sqrt(found)


# `fsum` is exact, so that a value does not depend on the order of events.
_AGGREGATES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "sum": lambda values: math.fsum(values) if values else None,
    "mean": lambda values: math.fsum(values) / len(values) if values else None,
    "variance": _variance,
    "std": _std,
    "min": lambda values: min(values, default=None),
    "max": lambda values: max(values, default=None),
    "first": lambda values: values[0] if values else None,
    "newest": lambda values: values[-1] if values else None,
    "distinct": lambda values: len(set(values)),
}
