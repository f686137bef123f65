"""One load of rows into a source's table and its quarantine, each row once, whatever is killed in between.

A row's `_seq` is the number of its load and its place in it, so what is there of a load that was cut short is known by
row, and only the rest is written. The quarantine is written first, so a row that is in neither table is still to come.

A write's key is the load's id and how many of its rows the table has before. Whoever else writes the same load, where
no lock keeps them away, is told so by the lake and begins again with what is there then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Corrupt
from mainspring.core.expr.sql import quote_text
from mainspring.data import duck, versions
from mainspring.data.arrow import no_rows, quarantine_schema, widened
from mainspring.data.fitting import BELOW
from mainspring.data.flags import numbers
from mainspring.data.heads import Heads
from mainspring.data.keyings import Keyings, declared
from mainspring.data.model import BATCH, QUARANTINE_SUFFIX, SEQUENCE, VISIBLE_AT, Source, TableScan, TableVersion
from mainspring.data.ports import LakeTables
from mainspring.data.staging import Staging

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int, int | None], None]

# How many numbers of `_seq` each load has for itself, and so the most rows in one.
LOAD_ROWS = 1 << 20

_OVERTAKEN = 50  # times that others may have been faster with some of the load

_SEQUENCES = pa.schema([pa.field(SEQUENCE, pa.int64())])


@dataclass(slots=True)
class Tally:
    """What became of the rows so far."""

    total: int | None
    progress: Progress | None
    landed: int = 0
    quarantined: int = 0
    already: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    future: int = 0  # of the landed, those whose event is after now
    latest: int = 0  # the last of these events
    below: int = 0  # of all, those with a time that has a part below a microsecond
    keyless: dict[str, int] = field(default_factory=dict)  # of the landed, by entity, those that are of none

    def drop(self, rows: pa.Table) -> pa.Table:
        """Count the rows that have a time with a part below a microsecond, and return all without these parts."""
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
    """What all loads of one ingestion share.

    Args:
        name, strict: What to call the data, and when to refuse it: see `data.staging.Staging`.
        now: UTC epoch microseconds: events after it are counted.
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

    def land(self, raw: pa.Table, batch: str) -> None:
        """Bring every row of `raw`, the load that is known as `batch`, into one of the two tables.

        Raises:
            InvalidData: The data as a whole does not fit the source; nothing of the load was written.
            StorageFull: No space; what was written before is whole, and landing it again resumes.
            Corrupt: The lake takes rows for written that are not there.
        """
        before = self.tally.done
        for _ in range(_OVERTAKEN):
            if self._land_rest(raw, batch, before):
                return
        raise Corrupt(
            f"Table {self.source.name!r} has batch {batch!r} among what was written, and not its rows.",
            fix="land the rows under another --batch-id.",
        )

    def _land_rest(self, raw: pa.Table, batch: str, before: int) -> bool:
        """Land what is not there; return False if somebody else was faster with some of it."""
        tally = self.tally
        # One version of each table is what everything below is judged by. The quarantine's is read last: it has the
        # failing rows of every load of which the table has a row.
        kept = self._pin(self.source.name, "kept")
        failed = self._pin(self._quarantine, "kept_quarantine")
        landed = self._there(self.source.name, "kept", batch) if kept else no_rows(_SEQUENCES)
        bad = self._there(self._quarantine, "kept_quarantine", batch) if failed else no_rows(_SEQUENCES)
        there = pa.concat_tables([landed, bad])
        tally.count(already=len(there) - (tally.done - before))
        if len(there) == len(raw):
            return True
        if kept is not None:
            self.heads.pin(*kept)
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
        alone = bool(made) and made == list(range(first, first + len(made)))  # nobody wrote in between
        self.heads.landed(rows, made[-1] if alone else None)
        return True

    def _check_all(self, raw: pa.Table, accounted: int) -> None:
        """Check that every row goes somewhere: a row that is in neither table would be lost without a trace."""
        if accounted != len(raw):
            raise Corrupt(
                f"Of {len(raw):,} rows of {self.name}, {accounted:,} are accounted for; none of them was written.",
                fix="run it again, and report it: this is a defect.",
            )

    @property
    def _quarantine(self) -> str:
        return self.source.name + QUARANTINE_SUFFIX

    def _pin(self, table: str, view: str) -> tuple[TableScan, TableVersion] | None:
        """Make the newest version of a table readable as `view`; return what it is, None where there is no table."""
        if self.lake.version(table) is None:
            return None
        scan = self.lake.scan(table)
        if table == self.source.name:
            scan = widened(scan, self.source)
        duck.register(self.con, view, scan)
        return scan, self.lake.describe(table, scan.version)

    def _there(self, table: str, view: str, batch: str) -> pa.Table:
        """Return the `_seq` of the load's rows in a table's view, which is read only if the load has begun there."""
        if not self.lake.has(table, f"{batch}.0"):
            return no_rows(_SEQUENCES)
        found: pa.Table = self.con.sql(
            f"SELECT {SEQUENCE} FROM {view} WHERE {BATCH} = {quote_text(batch)}"
        ).to_arrow_table()
        return found

    def _base(
        self,
        there: pa.Table,
        kept: tuple[TableScan, TableVersion] | None,
        failed: tuple[TableScan, TableVersion] | None,
    ) -> int:
        """Return the `_seq` of the load's first row: as it was when it began, or the next that no load ever had.

        A restore takes rows away, not the numbers that they had. A load makes at least one version of the two tables,
        and versions are never taken away: so no load has had as high a number as there are versions.
        """
        if len(there):
            return int(pc.min(there[SEQUENCE]).as_py()) // LOAD_ROWS * LOAD_ROWS
        newest = []
        if kept is not None:
            newest.append(self.heads.newest()[0])
        if failed is not None:
            newest.append(duck.one_row(self.con, f"SELECT max({SEQUENCE}) FROM kept_quarantine")[0])
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
        """Write the rows and return the versions that they became; None if somebody else was faster with some."""
        made = []
        for chunk, changed in self._chunks(rows, changes):
            key = f"{batch}.{before}"
            if changed is None:
                version = self.lake.append(self.source.name, chunk.to_batches(), chunk.schema, key=key)
            else:
                version = self.lake.rewrite(self.source.name, chunk, changed, SEQUENCE, key=key)
            if version is None:
                return None
            made.append(version)
            before += len(chunk)
            self._notice(chunk)
            self.tally.count(landed=len(chunk))
        return made

    def _notice(self, chunk: pa.Table) -> None:
        """Count what is no fault, and perhaps a mistake."""
        events = numbers(chunk[self.source.event_time])
        if len(events) and (latest := int(events.max())) > self.now:
            self.tally.future += int((events > self.now).sum())
            self.tally.latest = max(self.tally.latest, latest)
        for name, keys in declared(self.source, self.keyings).items():
            nulls = functools.reduce(pc.or_, (pc.is_null(chunk[key]) for key in keys))
            if missing := pc.sum(pc.cast(nulls, pa.int64())).as_py():
                self.tally.keyless[name] = self.tally.keyless.get(name, 0) + missing

    def _chunks(self, rows: pa.Table, changes: pa.Table) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """Cut rows into what becomes one version each; the first brings all that makes earlier flags change.

        Versions of facts come at once: a row is not to be superseded by one that is still to come.
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
