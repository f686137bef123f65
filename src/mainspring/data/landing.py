"""Idempotent writing of one load into a source's table and its quarantine: each row once, despite crashes.

A row's `_seq` consists of its load's number and its position in the load, so the rows stored by an interrupted load are
known exactly, and only the rest is written. The quarantine is written first, so a row in neither table is still to be
written.

A write's key is the load's id and the number of its rows already in the table. If another process writes the same load,
where no lock excludes it, the lake reports the duplicate key, and this module starts again from the current state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Corrupt
from mainspring.core.expr.sql import quote_text
from mainspring.data import duck, versions
from mainspring.data.arrow import no_rows, quarantine_schema, widened
from mainspring.data.arrow_coercion import BELOW
from mainspring.data.flags import numbers
from mainspring.data.heads import Heads
from mainspring.data.keyings import Keyings, declared
from mainspring.data.model import BATCH, QUARANTINE_SUFFIX, SEQUENCE, VISIBLE_AT, Source, TableScan, TableVersion
from mainspring.data.ports import NO_MARKS, LakeTables
from mainspring.data.quality import unique_rules
from mainspring.data.staging import Staging

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int, int | None], None]

# Number of `_seq` values reserved for each load, and so its maximum number of rows.
LOAD_ROWS = 1 << 20

_OVERTAKEN = 50  # retries when another process writes some of the load

_SEQUENCES = pa.schema([pa.field(SEQUENCE, pa.int64())])


@dataclass(slots=True)
class Tally:
    """Counts of an ingestion's rows so far."""

    total: int | None
    progress: Progress | None
    landed: int = 0
    quarantined: int = 0
    already: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    future: int = 0  # ingested rows whose event time is after now
    latest: int = 0  # the latest of these event times
    below: int = 0  # rows with a time finer than a microsecond
    keyless: dict[str, int] = field(default_factory=dict)  # ingested rows with a null key, by entity

    def drop(self, rows: pa.Table) -> pa.Table:
        """Count the rows with a time finer than a microsecond, and return all rows without the dropped parts."""
        parts = [name for name in rows.column_names if name.startswith(BELOW)]
        if parts:
            some = functools.reduce(pc.or_, (pc.is_valid(rows[name]) for name in parts))
            self.below += pc.sum(pc.cast(some, pa.int64())).as_py() or 0
        return rows.drop_columns(parts)

    @property
    def done(self) -> int:
        return self.landed + self.quarantined + self.already

    def count(self, *, landed: int = 0, quarantined: int = 0, already: int = 0) -> None:
        self.landed += landed
        self.quarantined += quarantined
        self.already += already
        if self.progress is not None and landed + quarantined + already:
            self.progress(self.done, self.total)


@dataclass(frozen=True, slots=True)
class Landing:
    """State shared by all loads of one ingestion.

    Args:
        name, strict: The data's name in messages, and when to refuse it: see `data.staging.Staging`.
        now: UTC epoch microseconds; later events are counted as future.
        marks: Marks to store with the last rows of a load in the source's table.
    """

    con: duckdb.DuckDBPyConnection
    lake: LakeTables
    source: Source
    keyings: Keyings
    heads: Heads
    batch_rows: int
    name: str
    strict: bool
    tally: Tally
    now: int
    marks: Mapping[str, int]

    def land(self, raw: pa.Table, batch: str) -> None:
        """Write every row of `raw`, the load identified by `batch`, into the table or the quarantine.

        Raises:
            InvalidData: The data as a whole does not fit the source; nothing of the load was written.
            StorageFull: No space; earlier writes are complete, and ingesting again resumes.
            Corrupt: The lake has the key of a write, but not its rows.
        """
        before = self.tally.done
        for _ in range(_OVERTAKEN):
            if self._land_rest(raw, batch, before):
                return
        raise Corrupt(
            f"Table {self.source.name!r} has batch {batch!r} in its log, but not its rows.",
            fix="ingest the rows under another --batch-id.",
        )

    def _land_rest(self, raw: pa.Table, batch: str, before: int) -> bool:
        """Write the missing rows; return False if another process wrote some of them meanwhile."""
        tally = self.tally
        # Everything below refers to one version of each table. The quarantine's is pinned last: it then has the failing
        # rows of every load of which the table has a row.
        kept = self._pin(self.source.name)
        failed = self._pin(self._quarantine)
        landed = self._there(self.source.name, kept, batch)
        bad = self._there(self._quarantine, failed, batch)
        there = pa.concat_tables([landed, bad])
        tally.count(already=len(there) - (tally.done - before))
        if len(there) == len(raw):
            return True
        if kept is not None:
            self.heads.pin(*kept)
            if self.source.versioning is not None or any(unique_rules(self.source)):
                self.heads.open_kept()
        base = self._base(there, kept, failed)
        staging = Staging(
            self.con,
            self.source,
            raw,
            heads=self.heads,
            kept=kept is not None,
            base=base,
            batch=batch,
            name=self.name,
            strict=self.strict,
        )
        staging.judge_unique()
        staging.leave_out(there)
        if self.source.versioning is None:
            rows, changes = staging.landing(self.keyings, self.batch_rows)
        else:
            rows, changes = versions.landing(self.con, self.source, self.keyings, batch, kept=kept is not None)
        failing = staging.quarantined()
        self._check_all(raw, len(there) + len(failing) + len(rows))
        if not self._put_aside(staging, failing, batch, len(bad)):
            return False
        made = self._put(rows, changes, batch, len(landed))
        if made is None:
            return False
        first = 0 if kept is None else kept[0].version + 1
        alone = bool(made) and made == list(range(first, first + len(made)))  # no other write in between
        self.heads.landed(rows, made[-1] if alone else None)
        return True

    def _check_all(self, raw: pa.Table, accounted: int) -> None:
        """Raise if a row is in neither result: it would be lost silently."""
        if accounted != len(raw):
            raise Corrupt(
                f"Of {len(raw):,} rows of {self.name}, {accounted:,} are accounted for; nothing was written.",
                fix="run the command again, and report it: this is a defect.",
            )

    @property
    def _quarantine(self) -> str:
        return self.source.name + QUARANTINE_SUFFIX

    def _pin(self, table: str) -> tuple[TableScan, TableVersion] | None:
        """Return scan and description of a table's newest version, None if there is no table."""
        if self.lake.version(table) is None:
            return None
        scan = self.lake.scan(table)
        if table == self.source.name:
            scan = widened(scan, self.source)
        return scan, self.lake.describe(table, scan.version)

    def _there(self, table: str, pinned: tuple[TableScan, TableVersion] | None, batch: str) -> pa.Table:
        """Return the `_seq` of the load's rows in a table, which is read only if the load has begun there."""
        if pinned is None or not self.lake.has(table, f"{batch}.0"):
            return no_rows(_SEQUENCES)
        duck.register(self.con, "pinned", pinned[0])
        found: pa.Table = self.con.sql(
            f"SELECT {SEQUENCE} FROM pinned WHERE {BATCH} = {quote_text(batch)}"
        ).to_arrow_table()
        return found

    def _base(
        self,
        there: pa.Table,
        kept: tuple[TableScan, TableVersion] | None,
        failed: tuple[TableScan, TableVersion] | None,
    ) -> int:
        """Return the `_seq` of the load's first row: of its first attempt, or the next that was never used.

        A restore removes rows, but their numbers must not be reused. A load makes at least one version of the two
        tables, and versions are never removed, so no load's number reaches the number of versions.
        """
        if len(there):
            return int(pc.min(there[SEQUENCE]).as_py()) // LOAD_ROWS * LOAD_ROWS
        newest = []
        if kept is not None:
            newest.append(self.heads.newest()[0])
        if failed is not None:
            duck.register(self.con, "pinned", failed[0])
            newest.append(duck.one_row(self.con, f"SELECT max({SEQUENCE}) FROM pinned")[0])
        next_load = max((number // LOAD_ROWS + 1 for number in newest if number is not None), default=0)
        tables = [pinned[1] for pinned in (kept, failed) if pinned is not None]
        if any(found.restored is not None for found in tables):
            next_load = max(next_load, sum(found.version + 1 for found in tables))
        return next_load * LOAD_ROWS

    def _put_aside(self, staging: Staging, rows: pa.Table, batch: str, before: int) -> bool:
        if not len(rows):
            return True
        key = f"{batch}.{before}"
        if self.lake.append(self._quarantine, rows.to_batches(), quarantine_schema(self.source), key=key) is None:
            return False
        for reason, count in staging.reasons().items():
            self.tally.reasons[reason] = self.tally.reasons.get(reason, 0) + count
        self.tally.count(quarantined=len(rows))
        return True

    def _put(self, rows: pa.Table, changes: pa.Table, batch: str, before: int) -> list[int] | None:
        """Write the rows and return their versions; None if another process wrote some of them meanwhile."""
        made = []
        end = before + len(rows)
        for chunk, changed in self._chunks(rows, changes):
            key = f"{batch}.{before}"
            marks = self.marks if before + len(chunk) == end else NO_MARKS
            if changed is None:
                version = self.lake.append(self.source.name, chunk.to_batches(), chunk.schema, key=key, marks=marks)
            else:
                version = self.lake.rewrite(self.source.name, chunk, changed, SEQUENCE, key=key, marks=marks)
            if version is None:
                return None
            made.append(version)
            before += len(chunk)
            self._notice(chunk)
            self.tally.count(landed=len(chunk))
        return made

    def _notice(self, chunk: pa.Table) -> None:
        """Count rows that are valid but suspicious: future events and null keys."""
        events = numbers(chunk[self.source.event_time])
        if len(events) and (latest := int(events.max())) > self.now:
            self.tally.future += int((events > self.now).sum())
            self.tally.latest = max(self.tally.latest, latest)
        for name, keys in declared(self.source, self.keyings).items():
            nulls = functools.reduce(pc.or_, (pc.is_null(chunk[key]) for key in keys))
            if missing := pc.sum(pc.cast(nulls, pa.int64())).as_py():
                self.tally.keyless[name] = self.tally.keyless.get(name, 0) + missing

    def _chunks(self, rows: pa.Table, changes: pa.Table) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """Split rows into one chunk per version; the first includes all rows that change earlier flags.

        Versions of facts come as one chunk: a row must not be superseded by one that is not written yet.
        """
        if self.source.versioning is not None:
            if len(rows):
                yield rows, changes.drop_columns([VISIBLE_AT]) if len(changes) else None
            return
        start = 0
        if len(changes):
            last = pc.max(changes[VISIBLE_AT])
            start = len(rows.filter(pc.less_equal(rows[VISIBLE_AT], last)))
            yield rows.slice(0, start), changes.drop_columns([VISIBLE_AT])
        for first in range(start, len(rows), self.batch_rows):
            yield rows.slice(first, self.batch_rows), None
