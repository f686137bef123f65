"""Sketching of predictions by column as they come into the store: the observer of the prediction log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.ledger.ports import Observed, Past
from mainspring.monitoring.hours import CROSSED, HourSketch, added, latency_buckets
from mainspring.monitoring.ports import Doubt, SketchStore
from mainspring.monitoring.served import Served
from mainspring.stats.crossings import MEASURES
from mainspring.stats.segmenting import segments_of
from mainspring.stats.sketches import Ruler, Sketch

_log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Values = Mapping[str, Any]


class Ages(NamedTuple):
    """How old sketches are kept; the default keeps all as they are.

    Attributes:
        made_before: Sketches of earlier hours are deleted, UTC epoch microseconds; `None` deletes none.
        folded_before: Earlier hours are added up to spans of `fold_us`, a divisor of the monitor's window and of a day.
    """

    made_before: int | None = None
    folded_before: int = 0
    fold_us: int = DAY


class Sketching:
    """`ledger.ports.Observer` that keeps the sketches of each hour, version and segment.

    Args:
        store: Receives the sketches.
        served: Returns the description of a bundle, by its digest.
        segments: Returns the names of features by which an endpoint's traffic is also sketched.
        slot_us: Length of the slots, which divides an hour. Shorter ones serve windows that are no whole hours.
        ages: Returns how old sketches are kept when the store is tidied.
        at_once: Predictions that are counted again at once; a day with more is counted alone.
    """

    def __init__(
        self,
        store: SketchStore,
        served: Callable[[str], Served],
        segments: Callable[[str], Sequence[str]] = lambda _: (),
        *,
        slot_us: int = HOUR,
        ages: Callable[[], Ages] | None = None,
        at_once: int = 200_000,
    ) -> None:
        self._at_once = at_once
        self._ages = ages
        self._seen: set[tuple[str, str]] = set()  # endpoints with features whose past segments were looked for
        self.slot_us = slot_us
        self._store = store
        self._segments = segments
        self._ruler = lru_cache(maxsize=32)(lambda digest: _Ruler(served(digest)))

    def observe(self, key: str, predictions: Sequence[Observed]) -> None:
        self._store.add(key, self.sketches(predictions))
        for endpoint in {each.endpoint for each in predictions}:
            self._look_for_segments(endpoint)

    def doubt(self, key: str, since: int | None, until: int | None) -> None:
        self._store.doubt(Doubt(key, since, until))

    def started(self) -> bool:
        return self._store.started()

    def settle(self, past: Past) -> None:
        doubts = self._store.doubts()
        if not doubts:
            return
        days: Counter[int] = Counter()  # whole ones, as old hours may have been added up to them
        for hour, rows in past.hours().items():
            days[hour // DAY * DAY] += rows
        if whole := [doubt for doubt in doubts if not doubt.feature]:
            # Doubts that are there together are settled together; a recount that was killed goes on where it was.
            key = blake2b(repr([doubt[:3] for doubt in whole]).encode(), digest_size=16).hexdigest()
            doubtful = {day: rows for day, rows in days.items() if any(_doubted(day, each) for each in whole)}
            for first, end in _spans(doubtful, self._at_once):
                if not self._store.recounted(key, first):
                    self._store.recount(key, first, end, self.sketches(past.between(first, end)))
            self._store.forget([doubt.key for doubt in whole])
        for doubt in doubts:
            if doubt.feature:
                self._count_segments(past, doubt, {day: rows for day, rows in days.items() if _doubted(day, doubt)})

    def _count_segments(self, past: Past, doubt: Doubt, days: Mapping[int, int]) -> None:
        """Count the next days of a feature's segments, so that no compaction takes long."""
        spans = list(_spans(days, self._at_once))
        left = [span for span in spans if not self._store.recounted(doubt.key, span[0])]
        if left:
            first, end = left[0]
            here = (seen for seen in past.between(first, end) if seen.endpoint == doubt.endpoint)
            found = [each for each in self.sketches(here) if each.segment.startswith(f"{doubt.feature}=")]
            self._store.recount(doubt.key, first, end, found, endpoint=doubt.endpoint, feature=doubt.feature)
            counted = len(spans) - len(left) + 1
            _log.info("segments of %s by %s: %d of %d parts", doubt.endpoint, doubt.feature, counted, len(spans))
        if len(left) <= 1:
            self._store.forget([doubt.key])

    def _look_for_segments(self, endpoint: str) -> None:
        """Doubt the past hours without segments by a feature that was declared after them; once in a process."""
        for feature in self._segments(endpoint):
            if (endpoint, feature) in self._seen:
                continue
            self._seen.add((endpoint, feature))
            hours = [
                hour
                for hour, digest in self._store.without_segments(endpoint, feature)
                if self._has_segments(digest, feature)
            ]
            if hours:
                # The hour behind the last may have been counted in part.
                key = f"segments:{endpoint}:{feature}:{hours[0]}"
                self._store.doubt(Doubt(key, hours[0], hours[-1] + 2 * HOUR, endpoint, feature))

    def _has_segments(self, digest: str, feature: str) -> bool:
        try:
            return self._ruler(digest).has_segments(feature)
        except MainspringError:  # the bundle is gone
            return False

    def ruler(self, digest: str) -> Ruler | None:
        """Return the ruler of a bundle, `None` if it has no reference."""
        return self._ruler(digest).ruler

    def personal(self, digest: str) -> Collection[str]:
        """Return the names of a bundle's features, keys and request fields that identify a person."""
        return self._ruler(digest).personal

    def tidy(self, *, replaced_before: int, entries: int) -> None:
        ages = Ages() if self._ages is None else self._ages()
        self._store.tidy(
            replaced_before=replaced_before,
            entries=entries,
            made_before=ages.made_before,
            folded_before=ages.folded_before,
            fold_us=ages.fold_us,
        )

    def sketches(self, predictions: Iterable[Observed]) -> list[HourSketch]:
        """Return the sketches of predictions, one for each key. Those that cannot be sketched are counted with the
        reason.
        """
        return added(sketch for each in predictions for sketch in self._of(each))

    def _of(self, seen: Observed) -> list[HourSketch]:
        groups = list(_groups(seen, self.slot_us))
        reason = ""
        try:
            ruler = self._ruler(seen.digest)
            values, segments = ruler.values(seen), ruler.segments(seen, self._segments(seen.endpoint))
            return [sketch for group in groups for sketch in ruler.sketches(seen, *group, values, segments)]
        except MainspringError as error:
            reason = str(error)
        except Exception as error:  # one version's values must not stop the log
            _log.exception("Predictions of version %s of %s cannot be sketched", seen.version, seen.endpoint)
            reason = f"{type(error).__name__}: {error}"
        return [_hour(seen, hour, share, "", rows, Sketch.empty(()), reason=reason) for hour, share, rows in groups]


class _Ruler:
    """Ruler of one version: its columns, its score, and its segments."""

    def __init__(self, served: Served) -> None:
        self._references = {} if served.reference is None else served.reference.columns
        self._score = served.score
        self.ruler = served.ruler
        self.personal = served.personal
        self._crossing = served.crossing

    def has_segments(self, feature: str) -> bool:
        """Return whether predictions can be told apart by a feature."""
        return feature in self._references

    def values(self, seen: Observed) -> Values:
        """Return the columns that are sketched, as Arrow where their values have one type.

        A feature that the predictions lack is null, unless it was left out of the log.
        """
        if self.ruler is None:
            return {}
        given = {**seen.features, self._score: seen.score}
        nothing = pa.nulls(len(seen.at))
        return {
            name: _column(given[name]) if name in given else nothing
            for name in self.ruler.columns
            if name in given or name not in seen.left_out
        }

    def segments(self, seen: Observed, names: Sequence[str]) -> list[tuple[Ints, list[str]]]:
        """Return the place of each row's segment, shape (rows,), and the segments' names, for each feature."""
        return [
            segments_of(name, seen.features[name], self._references[name])
            for name in names
            if name in self._references and name in seen.features
        ]

    def sketches(
        self,
        seen: Observed,
        hour: int,
        share: float,
        rows: Ints | slice,
        values: Values,
        segments: Sequence[tuple[Ints, list[str]]],
    ) -> Iterator[HourSketch]:
        """Yield the sketches of one hour: of all its rows, of each segment, and sums by bins of features."""
        if self.ruler is None:
            yield _hour(seen, hour, share, "", rows, Sketch.empty(()))
            return
        taken = {name: _taken(column, rows) for name, column in values.items()}
        sketch, pairs, summaries = self.ruler.measure_all(taken, hidden=seen.personal)
        yield replace(_hour(seen, hour, share, "", rows, sketch, pairs), summaries=summaries)
        if self._crossing:
            for measure, sums in zip(MEASURES, self._crossing.sums(taken, pairs.rows), strict=True):
                yield HourSketch(
                    seen.endpoint, seen.version, seen.digest, hour, CROSSED + measure, Sketch.empty(()), sums, share,
                    rows=sums.rows,
                )  # fmt: skip
        for places, labels in segments:
            here = places[rows]
            for place in np.unique(here).tolist():
                inside = np.flatnonzero(here == place)
                part = self.ruler.sketch({name: _taken(column, inside) for name, column in taken.items()})
                whole = inside + rows.start if isinstance(rows, slice) else rows[inside]
                yield _hour(seen, hour, share, labels[place], whole, part)


def _hour(
    seen: Observed, hour: int, share: float, segment: str, rows: Ints | slice, sketch: Sketch, pairs: Any = None,
    reason: str = "",
) -> HourSketch:  # fmt: skip
    latency_us = seen.latency_us[rows]
    return HourSketch(
        seen.endpoint, seen.version, seen.digest, hour, segment, sketch, pairs, share, reason, len(latency_us),
        latency_buckets(latency_us),
    )  # fmt: skip


def _groups(seen: Observed, slot_us: int) -> Iterator[tuple[int, float, Ints | slice]]:
    """Yield each slot and share with its rows."""
    hours = seen.at // slot_us * slot_us
    order = np.lexsort((seen.share, hours))
    changes = np.flatnonzero(np.diff(hours[order]) | (np.diff(seen.share[order]) != 0.0)) + 1
    in_order = bool((np.diff(order) == 1).all())  # as of most logs: then no row is copied
    for first, end in pairwise([0, *changes.tolist(), len(order)]) if len(order) else ():
        row = order[first]
        yield int(hours[row]), float(seen.share[row]), slice(first, end) if in_order else order[first:end]


def _column(values: Sequence[Any]) -> Any:
    """Return the values as an Arrow array if they have one simple type, else unchanged."""
    try:
        column: pa.Array[Any] = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return values
    return values if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) else column


def _taken(column: Any, rows: Ints | slice) -> Any:
    if isinstance(rows, slice):
        return column[rows]
    return column.take(rows) if isinstance(column, pa.Array) else [column[row] for row in rows.tolist()]


def _doubted(day: int, doubt: Doubt) -> bool:
    return (doubt.since is None or day + DAY > doubt.since) and (doubt.until is None or day < doubt.until)


def _spans(days: Mapping[int, int], at_once: int) -> Iterator[tuple[int, int]]:
    """Yield spans of adjacent days, with at most `at_once` predictions unless one day has more, in order."""
    first, end, many = 0, 0, 0
    for day in sorted(days):
        if end and (day > end or many + days[day] > at_once):
            yield first, end
            end = 0
        if not end:
            first, many = day, 0
        many += days[day]
        end = day + DAY
    if end:
        yield first, end
