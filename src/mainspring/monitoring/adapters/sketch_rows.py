"""Rows of hours and sketches in the lake's tables, and the changes by which their writer adds them up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.monitoring.adapters.summary_rows import summaries_of, summary_fields, with_summaries
from mainspring.monitoring.hours import FLEET, LATENCIES, HourSketch
from mainspring.stats.sketch_table import pair_fields, pair_rows, pairs_of, sketch_fields, sketch_rows, sketches_of
from mainspring.stats.sketches import Pairs
from mainspring.stats.summaries import Summary, added

SKETCHES, HOURS = "predictions__sketches", "predictions__hours"
INSTANT = pa.timestamp("us", tz="UTC")
KEYS: dict[str, pa.DataType] = {
    **{name: pa.string() for name in ("endpoint", "version", "digest")},
    "hour": INSTANT,
    "segment": pa.string(),
    "share": pa.float64(),
}
ARRIVAL = pa.field("arrival", pa.int64())  # grows with every write into the table
_KEY_FIELDS = [pa.field(name, kind) for name, kind in KEYS.items()]
SKETCHED = [field.name for field in (*_KEY_FIELDS, *sketch_fields())]
# Length of the time that a row stands for, microseconds; null until its hours were added up to a longer one.
SPAN = pa.field("span", pa.int64())
SKETCH_SCHEMA = pa.schema([*_KEY_FIELDS, *sketch_fields(), *summary_fields(), SPAN, ARRIVAL])
_REASON, _LATENCIES = pa.field("reason", pa.string()), pa.field("latencies", pa.list_(pa.int64()))
HOUR_SCHEMA = pa.schema([*_KEY_FIELDS, _REASON, *pair_fields(), _LATENCIES, ARRIVAL])
Change = Callable[[pa.Table], pa.Table | None]


def tables_of(sketches: Sequence[HourSketch]) -> Iterator[tuple[str, pa.Schema, pa.Table]]:
    """Yield the rows for each table, without their arrival, in the order in which they are written."""
    sketched = [each for each in sketches if each.sketch.columns]
    summaries = [one for each in sketched for one in each.summaries or [None] * len(each.sketch.columns)]
    rows = sketch_rows([each.sketch for each in sketched], _keys(sketched))
    yield SKETCHES, SKETCH_SCHEMA, with_summaries(rows, summaries).append_column(SPAN, pa.nulls(len(rows), pa.int64()))
    pairs = [
        Pairs((), each.rows, np.zeros((0, 0)))
        if each.pairs is None
        else Pairs(each.pairs.columns, each.rows, each.pairs.products)
        for each in sketches
    ]
    keys = _keys(sketches) | {"reason": pa.array([each.reason for each in sketches], pa.string())}
    rows = pair_rows(pairs, keys)
    latencies = [np.trim_zeros(each.latencies, "b") for each in sketches]
    yield HOURS, HOUR_SCHEMA, rows.append_column("latencies", pa.array(latencies, _LATENCIES.type))


def _keys(sketches: Sequence[HourSketch]) -> dict[str, pa.Array[Any]]:
    return {name: pa.array([getattr(each, name) for each in sketches], kind) for name, kind in KEYS.items()}


def summed_sketches(rows: pa.Table) -> pa.Table | None:
    rows = by_number(rows)
    sums = sketches_of(rows, [*KEYS])
    if sum(len(each.columns) for each in sums.values()) == len(rows):
        return None
    keys = {name: pa.array([key[at] for key in sums], kind) for at, (name, kind) in enumerate(KEYS.items())}
    summaries = summed_summaries(tuples_of(rows, [*KEYS, "column"]), rows)
    places = [(*key, column) for key, sketch in sums.items() for column in sketch.columns]
    summed = with_summaries(sketch_rows(list(sums.values()), keys), [summaries[place] for place in places])
    longest: dict[tuple[Any, ...], int] = {}
    if SPAN.name in rows.column_names:
        for key, span in zip(tuples_of(rows, [*KEYS, "column"]), rows[SPAN.name].to_pylist(), strict=True):
            if span is not None:
                longest[key] = max(int(span), longest.get(key, 0))
    return summed.append_column(SPAN, pa.array([longest.get(place) for place in places], pa.int64()))


def tuples_of(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in names), strict=True)


def summed_summaries(keys: Iterable[tuple[Any, ...]], rows: pa.Table) -> dict[tuple[Any, ...], Summary | None]:
    """Return the summaries of rows by key, `None` where none of its rows has one."""
    found: dict[tuple[Any, ...], list[Summary]] = {}
    for key, summary in zip(keys, summaries_of(rows), strict=True):
        found.setdefault(key, []).extend([] if summary is None else [summary])
    return {key: added(parts) if parts else None for key, parts in found.items()}


def summed_hours(rows: pa.Table) -> pa.Table | None:
    hours, names = by_number(rows), [*KEYS, "reason"]
    sums, latencies = pairs_of(hours, names), latencies_of(hours)
    if len(sums) == len(rows):
        return None
    kinds = {**KEYS, "reason": pa.string()}
    keys = {name: pa.array([key[at] for key in sums], kind) for at, (name, kind) in enumerate(kinds.items())}
    trimmed = [np.trim_zeros(latencies[key], "b") for key in sums]
    return pair_rows(list(sums.values()), keys).append_column("latencies", pa.array(trimmed, _LATENCIES.type))


def latencies_of(hours: pa.Table) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    rows: list[Any] = hours["latencies"].to_pylist()
    for key, counts in zip(tuples_of(hours, [*KEYS, "reason"]), rows, strict=True):
        found.setdefault(key, np.zeros(LATENCIES, np.int64))[: len(counts)] += np.asarray(counts, np.int64)
    return found


def by_number(rows: pa.Table) -> pa.Table:
    """Return the rows with their hours as numbers."""
    return rows.set_column(rows.column_names.index("hour"), "hour", rows["hour"].cast(pa.int64()))


def with_arrival(rows: pa.Table, arrival: int) -> pa.Table:
    return rows.append_column(ARRIVAL, pa.repeat(pa.scalar(arrival, pa.int64()), len(rows)))


def numbered(change: Change, arrival: int) -> Change:
    def numbered(rows: pa.Table) -> pa.Table | None:
        changed = change(rows)
        return None if changed is None else with_arrival(changed, arrival).select(rows.column_names)

    return numbered


def spans_of(rows: pa.Table) -> dict[int, npt.NDArray[np.int64]]:
    """Return the starts of the spans to which hours were added up, by their length."""
    found = rows.select(["hour", SPAN.name]).filter(pc.is_valid(rows[SPAN.name]))
    hours, spans = (found[name].to_numpy() for name in ("hour", SPAN.name))
    return {int(span): np.unique(hours[spans == span]) for span in np.unique(spans)}


def to_spans(rows: pa.Table, spans: Mapping[int, npt.NDArray[np.int64]]) -> pa.Table:
    """Return the rows with the start of its span as the hour of each that is within one."""
    hours = rows["hour"].to_numpy()
    for span, starts in spans.items():
        start = hours // span * span
        hours = np.where(np.isin(start, starts), start, hours)
    return rows.set_column(rows.column_names.index("hour"), "hour", pa.array(hours, pa.int64()))


def folded_to(summed: Change, span: int) -> Change:
    """Return the change that adds up hours to spans. They stay as old as their newest row."""

    def folded(rows: pa.Table) -> pa.Table | None:
        hours = by_number(rows)["hour"].to_numpy()
        at = rows.column_names.index("hour")
        moved = rows.set_column(at, "hour", pa.array(hours // span * span, pa.int64()).cast(rows.schema.field(at).type))
        changed = summed(moved)
        if changed is None:
            changed = moved.drop_columns([ARRIVAL.name])
        if SPAN.name in rows.column_names:
            of_span = pa.repeat(pa.scalar(span, pa.int64()), len(changed))
            changed = changed.set_column(changed.column_names.index(SPAN.name), SPAN, of_span)
        arrival = pc.max(rows[ARRIVAL.name]).as_py() or 0
        return with_arrival(changed, arrival).select(rows.column_names)

    return folded


def segments_replaced(new: pa.Table, endpoint: str, feature: str) -> Change:
    """Return the change that replaces an endpoint's segments by a feature."""

    def replaced(rows: pa.Table) -> pa.Table:
        of_feature = pc.starts_with(rows["segment"], f"{feature}=")
        others = rows.filter(pc.invert(pc.and_(pc.equal(rows["endpoint"], pa.scalar(endpoint)), of_feature)))
        return pa.concat_tables([others, new.select(rows.column_names).cast(rows.schema)])

    return replaced


def all_replaced(new: pa.Table) -> Change:
    """Return the change that replaces all that is made of the log."""

    def replaced(rows: pa.Table) -> pa.Table:
        of_devices = rows.filter(pc.starts_with(rows["segment"], FLEET))
        return pa.concat_tables([of_devices, new.select(rows.column_names).cast(rows.schema)])

    return replaced


def with_fleet(rows: pa.Table) -> pa.Table:
    """Return the rows with predictions that are in no log as a part of the whole traffic."""
    segments = rows["segment"]
    if not pc.any(pc.equal(segments, pa.scalar(FLEET))).as_py():
        return rows
    whole = pc.if_else(pc.equal(segments, pa.scalar(FLEET)), pa.scalar(""), segments)
    return rows.set_column(rows.column_names.index("segment"), "segment", whole)
