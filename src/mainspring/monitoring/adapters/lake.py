"""Sketches in tables of the lake, beside the predictions: any Delta reader can query them.

`predictions__sketches` has a row for each hour, version, segment and column, `predictions__hours` one for each hour,
version and segment: traffic, latencies, joint summary. Rows of one key are added up by their readers, and from time to
time by the writer. A sketch is written before its hour, so whoever sees the hour also sees the sketch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt
from mainspring.core.time import DAY, HOUR
from mainspring.data.ports import LakeTables
from mainspring.monitoring.adapters.sketch_rows import (
    HOUR_SCHEMA,
    HOURS,
    INSTANT,
    KEYS,
    SKETCH_SCHEMA,
    SKETCHED,
    SKETCHES,
    SPAN,
    all_replaced,
    by_number,
    folded_to,
    latencies_of,
    numbered,
    segments_replaced,
    spans_of,
    summed_hours,
    summed_sketches,
    summed_summaries,
    tables_of,
    to_spans,
    tuples_of,
    with_arrival,
    with_fleet,
)
from mainspring.monitoring.adapters.summary_rows import summary_fields
from mainspring.monitoring.hours import FLEET, HourSketch
from mainspring.monitoring.ports import Doubt
from mainspring.stats.sketch_table import pairs_of, sketches_of
from mainspring.stats.sketches import Sketch
from mainspring.stats.summaries import Summary

DOUBTS = "predictions__doubts"
_DOUBT: dict[str, pa.DataType] = {
    "key": pa.string(), "since": pa.int64(), "until": pa.int64(), "settled": pa.bool_(),
    "endpoint": pa.string(), "feature": pa.string(),
}  # fmt: skip
DOUBT_SCHEMA = pa.schema(_DOUBT)
_FOLDED_AT_ONCE = 4  # days
_GAP = 24 * HOUR  # between hours that are folded together


class LakeSketches:
    """`SketchStore` in tables of a lake. The caller excludes other writers.

    Args:
        fold_every: Number of versions of a table after which the rows of the hours written to lately are added up.
    """

    def __init__(self, lake: LakeTables, *, fold_every: int = 32) -> None:
        self._lake = lake
        self._fold_every = fold_every

    def add(self, key: str, sketches: Sequence[HourSketch]) -> None:
        for table, schema, rows in tables_of(sketches):
            before = self._version(table)
            arrival = 0 if before is None else before + 1
            batches = with_arrival(rows, arrival).select(schema.names).cast(schema).to_batches()
            version = self._lake.append(table, batches, schema, key=key)
            if version is not None and version // self._fold_every > (arrival - 1) // self._fold_every >= 0:
                self._fold(table, schema, version)

    def hours(self, endpoint: str, since: int, until: int, *, segment: str | None = "") -> list[HourSketch]:
        wanted = _between(since, until) & _is("endpoint", endpoint)
        if segment is not None:
            wanted &= _is("segment", segment) if segment else _is_whole()
        hours = with_fleet(by_number(self._rows(HOURS, HOUR_SCHEMA, wanted)))
        rows = with_fleet(by_number(self._rows(SKETCHES, SKETCH_SCHEMA, wanted, [*SKETCHED, SPAN.name])))
        # Sketches are folded before their hours, and late ones come behind: all of a folded time go together.
        spans = spans_of(rows)
        sketches, hours = sketches_of(to_spans(rows, spans), [*KEYS]), to_spans(hours, spans)
        pairs = pairs_of(hours, [*KEYS, "reason"])
        latencies = latencies_of(hours)
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
        return sorted(str(segment) for segment in found if segment not in ("", FLEET))

    def column(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Sketch]:
        rows = self._rows(SKETCHES, SKETCH_SCHEMA, _of_column(endpoint, column, since, until), SKETCHED)
        found = sketches_of(rows, ["version", "digest"])
        return {(str(version), str(digest)): sketch for (version, digest), sketch in found.items()}

    def summaries(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Summary]:
        wanted = _of_column(endpoint, column, since, until)
        names = ["version", "digest", *(field.name for field in summary_fields())]
        rows = self._rows(SKETCHES, SKETCH_SCHEMA, wanted, names)
        found = summed_summaries(tuples_of(rows, ["version", "digest"]), rows)
        return {(str(version), str(digest)): each for (version, digest), each in found.items() if each}

    def changed(self, endpoint: str, after: int | None = None) -> tuple[int, dict[int, int]]:
        version = self._version(HOURS)
        if version is None:
            return -1, {}
        if after is not None and after >= version:  # as most often: nothing is read
            return version, {}
        wanted = _is("endpoint", endpoint) & (pc.field("arrival") <= version)
        if after is not None:
            wanted &= pc.field("arrival") > after
        rows = self._rows(HOURS, HOUR_SCHEMA, wanted, ["hour", "rows", "segment"])
        whole = pc.equal(with_fleet(rows)["segment"], pa.scalar(""))
        rows = rows.set_column(1, "rows", pc.if_else(whole, rows["rows"], 0))
        sums = by_number(rows).group_by("hour").aggregate([("rows", "sum")]).sort_by("hour")
        found: dict[int, int] = dict(zip(sums["hour"].to_pylist(), sums["rows_sum"].to_pylist(), strict=True))  # type: ignore[arg-type]
        return version, found

    def started(self) -> bool:
        return self._version(HOURS) is not None or self._version(DOUBTS) is not None

    def doubt(self, doubt: Doubt) -> None:
        batch = pa.RecordBatch.from_pylist([{**doubt._asdict(), "settled": False}], DOUBT_SCHEMA)
        self._lake.append(DOUBTS, [batch], DOUBT_SCHEMA, key=doubt.key)

    def doubts(self) -> list[Doubt]:
        rows = self._rows(DOUBTS, DOUBT_SCHEMA, None).sort_by("key").to_pylist()
        settled = {row["key"] for row in rows if row["settled"]}
        return [
            Doubt(row["key"], row["since"], row["until"], row["endpoint"] or "", row["feature"] or "")
            for row in rows
            if row["key"] not in settled
        ]

    def without_segments(self, endpoint: str, feature: str) -> list[tuple[int, str]]:
        wanted = _is("endpoint", endpoint) & _is("reason", "")
        rows = by_number(self._rows(HOURS, HOUR_SCHEMA, wanted, ["hour", "digest", "segment"]))
        whole, of_feature = pc.equal(rows["segment"], pa.scalar("")), pc.starts_with(rows["segment"], f"{feature}=")
        first, others = (
            {*zip(part["hour"].to_pylist(), part["digest"].to_pylist(), strict=True)}
            for part in (rows.filter(whole), rows.filter(of_feature))
        )
        return sorted(first - others)  # type: ignore[arg-type]

    def recount(
        self, key: str, since: int, until: int, sketches: Sequence[HourSketch], *, endpoint: str = "", feature: str = ""
    ) -> None:
        for table, schema, rows in tables_of(sketches):
            if self._version(table) is None:
                self._lake.append(table, [], schema, key="first")
            arrival = (self._version(table) or 0) + 1
            new = with_arrival(rows, arrival).select(schema.names).cast(schema)
            change = segments_replaced(new, endpoint, feature) if feature else all_replaced(new)
            self._lake.fold(table, "hour", since, until, change, key=_part(key, since))

    def recounted(self, key: str, since: int) -> bool:
        return self._version(HOURS) is not None and self._lake.has(HOURS, _part(key, since))

    def forget(self, keys: Sequence[str]) -> None:
        rows = [{"key": key, "settled": True} for key in keys]
        batch = pa.RecordBatch.from_pylist(rows, DOUBT_SCHEMA)
        self._lake.append(DOUBTS, [batch], DOUBT_SCHEMA, key=f"settled:{'+'.join(keys)}")

    def tidy(
        self,
        *,
        replaced_before: int,
        entries: int,
        made_before: int | None = None,
        folded_before: int = 0,
        fold_us: int = DAY,
    ) -> None:
        for table in (HOURS, SKETCHES):  # an hour never outlives its sketches
            if made_before is not None and self._version(table) is not None:
                self._lake.expire(table, "hour", made_before)
        for table, schema in ((SKETCHES, SKETCH_SCHEMA), (HOURS, HOUR_SCHEMA)):
            if self._version(table) is not None:
                self._fold_old(table, schema, folded_before, fold_us)
                self._lake.vacuum(table, [], replaced_before=replaced_before)
                self._lake.shorten(table, entries, replaced_before=replaced_before)

    def _fold(self, table: str, schema: pa.Schema, version: int) -> None:
        """Add up the rows of the hours that were written to lately."""
        lately = pc.field("arrival") > version - 3 * self._fold_every
        hours = self._rows(table, schema, lately, ["hour"])["hour"].cast(pa.int64()).to_numpy()
        for since, until in _runs(np.unique(hours).tolist()):
            change = summed_sketches if table == SKETCHES else summed_hours
            self._lake.fold(table, "hour", since, until, numbered(change, version + 1), key=f"fold:{version}:{since}")

    def _fold_old(self, table: str, schema: pa.Schema, before: int, span: int) -> None:
        """Add up old hours to spans of a length, some days at once."""
        before = before // span * span
        old = pc.field("hour") < pa.scalar(before, INSTANT)
        hours = self._rows(table, schema, old, ["hour"])["hour"].cast(pa.int64()).to_numpy()
        starts = np.unique(hours[hours % span != 0] // span * span).tolist()
        summed = summed_sketches if table == SKETCHES else summed_hours
        while starts:
            since, end = starts[0], min(starts[0] + _FOLDED_AT_ONCE * DAY, before)
            starts = [start for start in starts if start >= end]
            self._lake.fold(
                table, "hour", since, end, folded_to(summed, span), key=f"span:{self._version(table)}:{since}"
            )

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


def _runs(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield spans that contain the hours and no long gap, as one of a clock that jumped."""
    for place, hour in enumerate(hours):
        if place == 0 or hour - hours[place - 1] > _GAP:
            first = hour
        if place + 1 == len(hours) or hours[place + 1] - hour > _GAP:
            yield first, hour + HOUR


def _of_column(endpoint: str, column: str, since: int, until: int) -> pc.Expression:
    return _between(since, until) & _is("endpoint", endpoint) & _is_whole() & _is("column", column)


def _between(since: int, until: int) -> pc.Expression:
    hour = pc.field("hour")
    return (hour >= pa.scalar(since, INSTANT)) & (hour < pa.scalar(until, INSTANT))


def _is(column: str, text: str) -> pc.Expression:
    # Cast, as a rewritten file has statistics of another type of strings, with which pyarrow cannot compare.
    return pc.field(column).cast(pa.large_string()) == pa.scalar(text, pa.large_string())


def _is_whole() -> pc.Expression:
    return _is("segment", "") | _is("segment", FLEET)


def _part(key: str, since: int) -> str:
    return f"recount:{key}:{since}"
