"""Landing: rows go to a source's table or to its quarantine, once, whatever is killed in between.

Rows come in loads of up to `load_rows`. A load is staged whole (`data.staging`), then written in chunks, each one
version of the table. A row's `_seq` is the number of its load and its place in it, so what is there of a load that was
cut short is known by row, and only the rest is written. The quarantine is written first: a row that is in neither
table is always still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.locks import Locks
from mainspring.core.time import Clock, format_duration
from mainspring.data import duck
from mainspring.data.arrow import landed_schema, no_rows, quarantine_schema
from mainspring.data.content import digest_rows
from mainspring.data.duck import identifier, literal
from mainspring.data.fitting import together
from mainspring.data.keyings import Keyings, check_keyings, complete_keyings, keyings_there
from mainspring.data.model import BATCH, QUARANTINE_SUFFIX, SEQUENCE, VISIBLE_AT, IngestReport, Source
from mainspring.data.ports import LakeTables
from mainspring.data.readers import Input, loads, open_input
from mainspring.data.staging import Staging

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int, int | None], None]

# How many numbers of `_seq` each load has for itself, and the most rows in one.
LOAD_ROWS = 1 << 20


@dataclass(slots=True)
class _Tally:
    """What happened so far."""

    total: int | None
    progress: Progress | None
    landed: int = 0
    quarantined: int = 0
    already: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def count(self, *, landed: int = 0, quarantined: int = 0, already: int = 0) -> None:
        self.landed += landed
        self.quarantined += quarantined
        self.already += already
        if self.progress is not None and landed + quarantined + already:
            self.progress(self.landed + self.quarantined + self.already, self.total)


class Ingestor:
    """Lands data. One ingestion of a source at a time, across processes.

    Args:
        batch_rows: How many rows one version of a table brings, at most.
        load_rows: How many rows are judged together, at most `LOAD_ROWS`. An ingestion that was cut short is resumed
            with the same number.
        wait_s: How long to wait for another ingestion of the same source.
    """

    def __init__(
        self,
        lake: LakeTables,
        locks: Locks,
        clock: Clock,
        batch_rows: int = 250_000,
        *,
        load_rows: int = LOAD_ROWS,
        memory_limit: str = "2GB",
        wait_s: float = 600.0,
    ) -> None:
        self._lake = lake
        self._locks = locks
        self._clock = clock
        self._batch_rows = batch_rows
        self._load_rows = min(load_rows, LOAD_ROWS)
        self._memory_limit = memory_limit
        self._database: duckdb.DuckDBPyConnection | None = None
        self._wait_s = wait_s

    def ingest(
        self,
        source: Source,
        data: Any,
        *,
        keyings: Keyings,
        batch_id: str | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Land `data`, which is whatever `data.readers.open_input` opens.

        Args:
            keyings: Entity name -> its key columns; the flag `_record_<entity>` is kept for each, and for those that
                the table has from before.
            batch_id: What the batch is known by, instead of its content: the same id twice changes nothing.
            progress: Called with the rows done and their total, where that is known.

        Raises:
            NotFound: There is no such file.
            InvalidData: The data as a whole does not fit the source, or its types are not the table's.
            StorageFull: No space; every version that was written is whole, and the same call resumes.
            Conflict: Another ingestion of the source went on for too long.
        """
        keyings = check_keyings(source, keyings)
        opened = open_input(data, source, self._batch_rows)
        tally = _Tally(opened.total, progress)
        with self._alone(source), self._session() as con:
            complete_keyings(con, self._lake, source, keyings, self._batch_rows)
            keyings = {**keyings_there(self._lake, source), **keyings}
            for number, pieces in enumerate(loads(opened.pieces, self._load_rows)):
                raw = together(pieces)
                batch = f"{batch_id or opened.digest or digest_rows(raw)}.{number}"
                with duck.duck_errors(source.name):
                    self._land(con, source, raw, batch, keyings, opened, tally)
            if self._lake.version(source.name) is None:
                self._lake.append(source.name, [], landed_schema(source, keyings), key="created")
            warnings = [*_extra(opened, source), *self._stale(con, source)]
        return IngestReport(
            source.name,
            tally.landed,
            tally.quarantined,
            tally.already,
            self._lake.version(source.name) or 0,
            tally.reasons,
            tuple(warnings),
        )

    def add_keyings(self, source: Source, keyings: Keyings) -> int | None:
        """Compute, for every row there, the flags of keyings that the table lacks or has for other columns.

        Returns:
            The new version; `None`, and no version, where there was nothing to do.
        """
        with self._alone(source), self._session() as con, duck.duck_errors(source.name):
            return complete_keyings(con, self._lake, source, check_keyings(source, keyings), self._batch_rows)

    def _alone(self, source: Source) -> Any:
        return self._locks.hold(f"ingest.{source.name}", wait_s=self._wait_s)

    def _session(self) -> duckdb.DuckDBPyConnection:
        """Return a connection with temporary tables of its own: a whole database costs more than a small load."""
        if self._database is None:
            self._database = duck.connect(self._memory_limit)
        return self._database.cursor()

    def _land(
        self,
        con: duckdb.DuckDBPyConnection,
        source: Source,
        raw: pa.Table,
        batch: str,
        keyings: Keyings,
        opened: Input,
        tally: _Tally,
    ) -> None:
        table, quarantine = source.name, source.name + QUARANTINE_SUFFIX
        # Keys are chosen before it is read what is there: a writer that no lock keeps away then takes the same ones.
        keys, quarantine_keys = self._unused_keys(table, batch), self._unused_keys(quarantine, batch)
        there = self._there(con, source, batch)
        if len(there) == len(raw):
            tally.count(already=len(there))
            return
        base = pc.min(there[SEQUENCE]).as_py() // LOAD_ROWS * LOAD_ROWS if len(there) else self._next_load(con, source)
        staging = Staging(con, source, raw, base=base, batch=batch, name=opened.name, strict=opened.digest is not None)
        staging.compare_with(None if self._lake.version(table) is None else self._lake.scan(table))
        staging.judge_unique()
        if len(there):
            staging.leave_out(there)
            tally.count(already=len(there))
        bad = staging.quarantined()
        rows, changes = staging.landing(keyings)
        if len(bad):
            self._lake.append(quarantine, bad.to_batches(), quarantine_schema(source), key=next(quarantine_keys))
            for reason, count in staging.reasons().items():
                tally.reasons[reason] = tally.reasons.get(reason, 0) + count
            tally.count(quarantined=len(bad))
        for chunk, changed in self._chunks(rows, changes):
            key = next(keys)
            if changed is None:
                version = self._lake.append(table, chunk.to_batches(), chunk.schema, key=key)
            else:
                version = self._lake.rewrite(table, chunk, changed, SEQUENCE, key=key)
            tally.count(**{"already" if version is None else "landed": len(chunk)})

    def _chunks(self, rows: pa.Table, changes: pa.Table) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """Cut rows into what becomes one version each; the first brings all that makes earlier flags change."""
        start = 0
        if len(changes):
            last = pc.max(changes[VISIBLE_AT])
            start = len(rows.filter(pc.less_equal(rows[VISIBLE_AT], last)))
            yield rows.slice(0, start), changes.drop_columns([VISIBLE_AT])
        for first in range(start, len(rows), self._batch_rows):
            yield rows.slice(first, self._batch_rows), None

    def _unused_keys(self, table: str, batch: str) -> Iterator[str]:
        number = 0
        while self._lake.has(table, f"{batch}.{number}"):
            number += 1
        return (f"{batch}.{later}" for later in range(number, LOAD_ROWS))

    def _there(self, con: duckdb.DuckDBPyConnection, source: Source, batch: str) -> pa.Table:
        """Return the `_seq` of this load's rows that are in the table or the quarantine."""
        parts = [
            con.sql(f"SELECT {SEQUENCE} FROM {view} WHERE {BATCH} = {literal(batch)}").to_arrow_table()
            for name, view in self._views(con, source)
            if self._lake.has(name, f"{batch}.0")
        ]
        return pa.concat_tables([no_rows(pa.schema([pa.field(SEQUENCE, pa.int64())])), *parts])

    def _next_load(self, con: duckdb.DuckDBPyConnection, source: Source) -> int:
        """Return the first `_seq` of the next load."""
        newest = [duck.one_row(con, f"SELECT max({SEQUENCE}) FROM {view}")[0] for _, view in self._views(con, source)]
        numbers = [number for number in newest if number is not None]
        return (max(numbers) // LOAD_ROWS + 1) * LOAD_ROWS if numbers else 0

    def _views(self, con: duckdb.DuckDBPyConnection, source: Source) -> Iterator[tuple[str, str]]:
        for name, view in ((source.name, "there"), (source.name + QUARANTINE_SUFFIX, "there_quarantined")):
            if self._lake.version(name) is not None:
                duck.register(con, view, self._lake.scan(name))
                yield name, view

    def _stale(self, con: duckdb.DuckDBPyConnection, source: Source) -> Iterator[str]:
        limits = [check.within for check in source.checks if check.kind == "fresh"]
        if not limits:
            return
        duck.register(con, "there", self._lake.scan(source.name))
        newest = duck.one_row(con, f"SELECT epoch_us(max({identifier(source.event_time)})) FROM there")[0]
        if newest is None:
            yield f"{source.name} has no event yet."
        elif (age := self._clock.now() - newest) > min(limits):
            yield (
                f"The newest event of {source.name} is {format_duration(age)} old, "
                f"more than {format_duration(min(limits))}."
            )


def _extra(opened: Input, source: Source) -> Iterator[str]:
    if opened.extra:
        names = ", ".join(opened.extra)
        yield f"{opened.name} has columns that source {source.name!r} does not declare; left out: {names}."
