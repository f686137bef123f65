"""Sketches in tables of the lake, beside the predictions: any Delta reader can query them.

`predictions__sketches` has a row for each hour, version, segment and column, `predictions__hours` one for each hour,
version and segment: traffic, latencies, joint summary. Rows of one key are added up by their readers, and from time to
time by the writer. A sketch is written before its hour, so whoever sees the hour also sees the sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt
from mainspring.core.time import HOUR
from mainspring.data.ports import LakeTables
from mainspring.monitoring.hours import LATENCIES, HourSketch
from mainspring.monitoring.ports import Doubt
from mainspring.stats.sketch_table import pair_fields, pair_rows, pairs_of, sketch_fields, sketch_rows, sketches_of
from mainspring.stats.sketches import Pairs, Sketch
from mainspring.stats.summaries import Summary, added
from mainspring.stats.summary_table import summaries_of, summary_fields, with_summaries

SKETCHES, HOURS, DOUBTS = "predictions__sketches", "predictions__hours", "predictions__doubts"
_INSTANT = pa.timestamp("us", tz="UTC")
_KEYS: dict[str, pa.DataType] = {
    **{name: pa.string() for name in ("endpoint", "version", "digest")},
    "hour": _INSTANT,
    "segment": pa.string(),
    "share": pa.float64(),
}
_ARRIVAL = pa.field("arrival", pa.int64())  # grows with every write into the table
_KEY_FIELDS = [pa.field(name, kind) for name, kind in _KEYS.items()]
_SKETCHED = [field.name for field in (*_KEY_FIELDS, *sketch_fields())]
SKETCH_SCHEMA = pa.schema([*_KEY_FIELDS, *sketch_fields(), *summary_fields(), _ARRIVAL])
_REASON, _LATENCIES = pa.field("reason", pa.string()), pa.field("latencies", pa.list_(pa.int64()))
HOUR_SCHEMA = pa.schema([*_KEY_FIELDS, _REASON, *pair_fields(), _LATENCIES, _ARRIVAL])
_DOUBT: dict[str, pa.DataType] = {"key": pa.string(), "since": pa.int64(), "until": pa.int64(), "settled": pa.bool_()}
DOUBT_SCHEMA = pa.schema(_DOUBT)
_GAP = 24 * HOUR  # between hours that are folded together
Change = Callable[[pa.Table], pa.Table | None]


class LakeSketches:
    """`SketchStore` in tables of a lake. The caller excludes other writers.

    Args:
        fold_every: Number of versions of a table after which the rows of the hours written to lately are added up.
    """

    def __init__(self, lake: LakeTables, *, fold_every: int = 32) -> None:
        self._lake = lake
        self._fold_every = fold_every

    def add(self, key: str, sketches: Sequence[HourSketch]) -> None:
        for table, schema, rows in _tables(sketches):
            before = self._version(table)
            arrival = 0 if before is None else before + 1
            batches = _with_arrival(rows, arrival).select(schema.names).cast(schema).to_batches()
            version = self._lake.append(table, batches, schema, key=key)
            if version is not None and version // self._fold_every > (arrival - 1) // self._fold_every >= 0:
                self._fold(table, schema, version)

    def hours(self, endpoint: str, since: int, until: int, *, segment: str | None = "") -> list[HourSketch]:
        wanted = _between(since, until) & _is("endpoint", endpoint)
        if segment is not None:
            wanted &= _is("segment", segment)
        hours = _by_number(self._rows(HOURS, HOUR_SCHEMA, wanted))
        sketches = sketches_of(_by_number(self._rows(SKETCHES, SKETCH_SCHEMA, wanted, _SKETCHED)), [*_KEYS])
        pairs = pairs_of(hours, [*_KEYS, "reason"])
        latencies = _latencies(hours)
        nothing = Sketch.empty(())
        found = [
            HourSketch(
                *key[:5],  # type: ignore[call-arg]
                nothing if key[6] else sketches.get(key[:6], nothing),
                each if each.columns else None,
                *key[5:],
                each.rows,
                latencies[key],
            )
            for key, each in pairs.items()
        ]
        return sorted(found, key=lambda each: each.key)

    def segments(self, endpoint: str, since: int, until: int) -> list[str]:
        wanted = _between(since, until) & _is("endpoint", endpoint)
        found = pc.unique(self._rows(HOURS, HOUR_SCHEMA, wanted, ["segment"])["segment"]).to_pylist()
        return sorted(str(segment) for segment in found if segment)

    def summaries(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Summary]:
        wanted = _between(since, until) & _is("endpoint", endpoint) & _is("segment", "") & _is("column", column)
        names = ["version", "digest", *(field.name for field in summary_fields())]
        rows = self._rows(SKETCHES, SKETCH_SCHEMA, wanted, names)
        keys = zip(rows["version"].to_pylist(), rows["digest"].to_pylist(), strict=True)
        return {(str(version), str(digest)): each for (version, digest), each in _summed(keys, rows).items() if each}

    def changed(self, endpoint: str, after: int | None = None) -> tuple[int, dict[int, int]]:
        version = self._version(HOURS)
        if version is None:
            return -1, {}
        if after is not None and after >= version:  # as most often: nothing is read
            return version, {}
        wanted = _is("endpoint", endpoint) & _is("segment", "") & (pc.field("arrival") <= version)
        if after is not None:
            wanted &= pc.field("arrival") > after
        rows = self._rows(HOURS, HOUR_SCHEMA, wanted, ["hour", "rows"])
        sums = _by_number(rows).group_by("hour").aggregate([("rows", "sum")]).sort_by("hour")
        found: dict[int, int] = dict(zip(sums["hour"].to_pylist(), sums["rows_sum"].to_pylist(), strict=True))  # type: ignore[arg-type]
        return version, found

    def started(self) -> bool:
        return self._version(HOURS) is not None or self._version(DOUBTS) is not None

    def doubt(self, key: str, since: int | None, until: int | None) -> None:
        row = {"key": key, "since": since, "until": until, "settled": False}
        self._lake.append(DOUBTS, [pa.RecordBatch.from_pylist([row], DOUBT_SCHEMA)], DOUBT_SCHEMA, key=key)

    def doubts(self) -> list[Doubt]:
        rows = self._rows(DOUBTS, DOUBT_SCHEMA, None).sort_by("key").to_pylist()
        settled = {row["key"] for row in rows if row["settled"]}
        return [Doubt(row["key"], row["since"], row["until"]) for row in rows if row["key"] not in settled]

    def recount(self, key: str, since: int, until: int, sketches: Sequence[HourSketch]) -> None:
        for table, schema, rows in _tables(sketches):
            if self._version(table) is None:
                self._lake.append(table, [], schema, key="first")
            arrival = (self._version(table) or 0) + 1
            new = _with_arrival(rows, arrival).select(schema.names).cast(schema)
            self._lake.fold(table, "hour", since, until, _always(new), key=_part(key, since))

    def recounted(self, key: str, since: int) -> bool:
        return self._version(HOURS) is not None and self._lake.has(HOURS, _part(key, since))

    def forget(self, keys: Sequence[str]) -> None:
        rows = [{"key": key, "since": None, "until": None, "settled": True} for key in keys]
        batch = pa.RecordBatch.from_pylist(rows, DOUBT_SCHEMA)
        self._lake.append(DOUBTS, [batch], DOUBT_SCHEMA, key=f"settled:{'+'.join(keys)}")

    def tidy(self, *, replaced_before: int, entries: int) -> None:
        for table in (SKETCHES, HOURS):
            if self._version(table) is not None:
                self._lake.vacuum(table, [], replaced_before=replaced_before)
                self._lake.shorten(table, entries, replaced_before=replaced_before)

    def _fold(self, table: str, schema: pa.Schema, version: int) -> None:
        """Add up the rows of the hours that were written to lately."""
        lately = pc.field("arrival") > version - 3 * self._fold_every
        hours = self._rows(table, schema, lately, ["hour"])["hour"].cast(pa.int64()).to_numpy()
        for since, until in _runs(np.unique(hours).tolist()):
            change = _summed_sketches if table == SKETCHES else _summed_hours
            self._lake.fold(table, "hour", since, until, _numbered(change, version + 1), key=f"fold:{version}:{since}")

    def _rows(
        self, table: str, schema: pa.Schema, wanted: pc.Expression | None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        if self._version(table) is None:
            return schema.empty_table().select(list(columns or schema.names))
        scan = self._lake.scan(table)
        if scan.rows is not None:
            rows = scan.rows if wanted is None else scan.rows.filter(wanted)
            return rows.select(list(columns or schema.names))
        files = ds.dataset(list(scan.files or ()), schema=schema, format="parquet")
        return files.to_table(columns=list(columns or schema.names), filter=wanted)

    def _version(self, table: str) -> int | None:
        """Return the newest version of a table, after reverting a write that a power cut interrupted."""
        try:
            return self._lake.version(table)
        except Corrupt:
            if not self._lake.recover(table):
                raise
            return self._lake.version(table)


def _tables(sketches: Sequence[HourSketch]) -> Iterator[tuple[str, pa.Schema, pa.Table]]:
    """Yield the rows for each table, without their arrival, in the order in which they are written."""
    sketched = [each for each in sketches if each.sketch.columns]
    summaries = [one for each in sketched for one in each.summaries or [None] * len(each.sketch.columns)]
    rows = sketch_rows([each.sketch for each in sketched], _keys(sketched))
    yield SKETCHES, SKETCH_SCHEMA, with_summaries(rows, summaries)
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
    return {name: pa.array([getattr(each, name) for each in sketches], kind) for name, kind in _KEYS.items()}


def _summed_sketches(rows: pa.Table) -> pa.Table | None:
    rows = _by_number(rows)
    sums = sketches_of(rows, [*_KEYS])
    if sum(len(each.columns) for each in sums.values()) == len(rows):
        return None
    keys = {name: pa.array([key[at] for key in sums], kind) for at, (name, kind) in enumerate(_KEYS.items())}
    of_rows = zip(*(rows[name].to_pylist() for name in (*_KEYS, "column")), strict=True)
    summaries = _summed(of_rows, rows)
    places = [(*key, column) for key, sketch in sums.items() for column in sketch.columns]
    return with_summaries(sketch_rows(list(sums.values()), keys), [summaries[place] for place in places])


def _summed(keys: Iterable[tuple[Any, ...]], rows: pa.Table) -> dict[tuple[Any, ...], Summary | None]:
    """Return the summaries of rows by key, `None` where none of its rows has one."""
    found: dict[tuple[Any, ...], list[Summary]] = {}
    for key, summary in zip(keys, summaries_of(rows), strict=True):
        found.setdefault(key, []).extend([] if summary is None else [summary])
    return {key: added(parts) if parts else None for key, parts in found.items()}


def _summed_hours(rows: pa.Table) -> pa.Table | None:
    hours, names = _by_number(rows), [*_KEYS, "reason"]
    sums, latencies = pairs_of(hours, names), _latencies(hours)
    if len(sums) == len(rows):
        return None
    kinds = {**_KEYS, "reason": pa.string()}
    keys = {name: pa.array([key[at] for key in sums], kind) for at, (name, kind) in enumerate(kinds.items())}
    trimmed = [np.trim_zeros(latencies[key], "b") for key in sums]
    return pair_rows(list(sums.values()), keys).append_column("latencies", pa.array(trimmed, _LATENCIES.type))


def _latencies(hours: pa.Table) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    keys = zip(*(hours[name].to_pylist() for name in (*_KEYS, "reason")), strict=True)
    rows: list[Any] = hours["latencies"].to_pylist()
    for key, counts in zip(keys, rows, strict=True):
        found.setdefault(key, np.zeros(LATENCIES, np.int64))[: len(counts)] += np.asarray(counts, np.int64)
    return found


def _by_number(rows: pa.Table) -> pa.Table:
    """Return the rows with their hours as numbers."""
    return rows.set_column(rows.column_names.index("hour"), "hour", rows["hour"].cast(pa.int64()))


def _with_arrival(rows: pa.Table, arrival: int) -> pa.Table:
    return rows.append_column(_ARRIVAL, pa.repeat(pa.scalar(arrival, pa.int64()), len(rows)))


def _numbered(change: Change, arrival: int) -> Change:
    def numbered(rows: pa.Table) -> pa.Table | None:
        changed = change(rows)
        return None if changed is None else _with_arrival(changed, arrival).select(rows.column_names)

    return numbered


def _always(rows: pa.Table) -> Change:
    return lambda _: rows


def _runs(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield spans that contain the hours and no long gap, as one of a clock that jumped."""
    for place, hour in enumerate(hours):
        if place == 0 or hour - hours[place - 1] > _GAP:
            first = hour
        if place + 1 == len(hours) or hours[place + 1] - hour > _GAP:
            yield first, hour + HOUR


def _between(since: int, until: int) -> pc.Expression:
    hour = pc.field("hour")
    return (hour >= pa.scalar(since, _INSTANT)) & (hour < pa.scalar(until, _INSTANT))


def _is(column: str, text: str) -> pc.Expression:
    # Cast, as a rewritten file has statistics of another type of strings, with which pyarrow cannot compare.
    return pc.field(column).cast(pa.large_string()) == pa.scalar(text, pa.large_string())


def _part(key: str, since: int) -> str:
    return f"recount:{key}:{since}"
