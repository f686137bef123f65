"""Pulls: rows of a warehouse's table become rows of a source, each once, in the order of their arrival.

The rows that arrived since the last pull are read by one statement and ingested in batches; `data.warehouse.pulled`
says which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.core.locks import Locks
from mainspring.core.time import DAY, Clock
from mainspring.data import duck
from mainspring.data.flags import numbers
from mainspring.data.ingest import Ingestor
from mainspring.data.keyings import Keyings
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables
from mainspring.data.warehouse.arrivals import Arrivals, Look
from mainspring.data.warehouse.ports import Warehouse
from mainspring.data.warehouse.pull_store import ALL, PulledBatch, PullStore
from mainspring.data.warehouse.pulled import (
    NUMBER,
    POSITION,
    Start,
    as_mark,
    batch_key,
    find_start,
    known_rows,
    rows_before,
    settle,
)
from mainspring.data.warehouse.row_digests import ARRIVAL, Known, digests
from mainspring.data.warehouse.scans import TooMuchToRead

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int, int | None], None]

_BATCH_ROWS, _BATCH_BYTES = 1 << 18, 256 << 20
_KEPT = 1_000_000  # digests of rows that no pull will read again, for tables that are restored
_WAIT_S = 600.0
_WARNINGS = 20
_LOOK = pa.schema([(name, pa.int64()) for name in ("rows", "unordered", "newest", "wanted", "ahead")])


@dataclass(frozen=True, slots=True)
class PullPlan:
    """Rows that a pull would read, among them those that it would recognise.

    Attributes:
        since, until: The least and the largest arrival, as text.
        scanned_bytes: None where the warehouse does not tell.
    """

    source: str
    table: str
    arrival: str
    since: str
    until: str
    rows: int
    scanned_bytes: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullReport:
    """Result of a pull. `rows`, `quarantined` and `known` add up to the rows that were `read`.

    Attributes:
        since, until: The least arrival that was read, and the position after it, as text.
        known: Rows that earlier pulls had ingested.
        reasons: Quarantined rows by reason.
        changed: Changes of the table made first, because the source's declaration changed.
    """

    source: str
    table: str
    arrival: str
    since: str
    until: str
    read: int = 0
    rows: int = 0
    quarantined: int = 0
    known: int = 0
    batches: int = 0
    version: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Puller:
    """Pulls one source from one table of a warehouse.

    Args:
        keyings: As of `Ingestor.ingest`.
        wall: The machine's clock: rows that arrive after now are left until then.
        batch_rows: Rows of one batch, at most `LOAD_ROWS`.

    Raises:
        Invalid: The source takes signed files alone.
    """

    source: Source
    arrivals: Arrivals
    warehouse: Warehouse
    lake: LakeTables
    ingestor: Ingestor
    store: PullStore
    locks: Locks
    wall: Clock
    keyings: Keyings
    batch_rows: int = _BATCH_ROWS

    def __post_init__(self) -> None:
        if self.source.signed_by:
            raise Invalid(
                f"Source {self.source.name!r} takes signed files alone, and rows of a warehouse have no signature.",
                fix="ingest signed files, or declare another source for the rows of the warehouse.",
            )

    def plan(self, since: int | None = None) -> PullPlan:
        """Return what a pull would read; nothing is changed.

        Raises:
            Conflict: As `pull`.
        """
        start, high = self._start(since), self._now()
        look = self._look(start, high)
        estimate = self.warehouse.estimate(self.arrivals.read(self.source.columns, start.low, high))
        newest = [each for each in (look.newest, high) if each is not None]
        return PullPlan(
            self.source.name,
            *self.arrivals.order[:2],
            self.arrivals.shown(start.low),
            self.arrivals.shown(start.position if look.newest is None else min(newest)),
            look.wanted,
            None if estimate is None else estimate.scanned_bytes,
            (*self._warnings(look, start), *self._late(start)),
        )

    def pull(self, since: int | None = None, progress: Progress | None = None) -> PullReport:
        """Read and ingest the rows that arrived since the last pull.

        Args:
            since: Read the rows that arrived from here on, instead.
            progress: Called with the number of rows read, and the number that there are to read.

        Raises:
            Conflict: The source was filled from another table, the table no longer reaches to the position, it is no
                longer known what was read before, or another pull of the source does not end.
            StorageFull: No space; the next pull goes on.
        """
        with self.locks.hold(f"pull.{self.source.name}", wait_s=_WAIT_S), duck.session() as con:
            start = self._start(since)
            look = self._look(start, high := self._now())
            warnings = [*self._warnings(look, start)]
            if since is not None:
                self.store.deem_known(self.source.name, since)
            settle(con, self.source.name, self.lake, self.store, start.mark)
            last = self.store.last(self.source.name)
            report = _Pull(self, con, start, warnings).run(high, look.wanted, progress)
            days = [0 if last is None else last.at // DAY, self.wall.now() // DAY]
            if report.batches and days[0] < days[1]:  # not each time: a column of the table is read
                report = replace(report, warnings=(*report.warnings, *self._late(self._start(None))))
            return report

    def _start(self, since: int | None) -> Start:
        return find_start(self.source.name, self.arrivals, self.lake, self.store, since)

    def _now(self) -> int | None:
        """Return the largest arrival that may be read: a row of the future would put the position there."""
        return self.wall.now() if self.arrivals.instants else None

    def _look(self, start: Start, high: int | None, *, whole: bool = False) -> Look:
        with self.warehouse.read(self.arrivals.look(start.low, high, whole=whole)) as rows:
            (found,) = rows.read_all().cast(_LOOK).to_pylist()
        look = Look(**found)
        if look.newest is None and not whole:  # no row as new as those that were read: what else is there
            return self._look(start, high, whole=True)
        return look

    def _warnings(self, look: Look, start: Start) -> Iterator[str]:
        """Yield warnings about a table.

        Raises:
            Conflict: It was replaced.
        """
        table, column, shown = *self.arrivals.order[:2], self.arrivals.shown
        if look.newest is not None and start.position is not None and start.low is not None:
            known = next(self.store.digests(self.source.name, start.low), None)
            if look.newest < start.low and known is not None:
                raise Conflict(
                    f"{table} ends at {shown(look.newest)}, before {shown(start.low)}, from where {self.source.name} "
                    "goes on: its newest rows were deleted, or it was replaced.",
                    fix="say with --since from which arrival on to read; what is no longer known of it comes again.",
                )
            if look.newest < start.position:
                yield f"{table} ends at {shown(look.newest)}, before {shown(start.position)}, up to which it was read."
        if not look.rows and start.position is not None:
            yield f"{table} is empty; rows are read from {shown(start.low)} on."
        if look.unordered:
            yield f"{look.unordered:,} rows of {table} are never read, because their {column} is null."
        if look.ahead:
            yield (
                f"{look.ahead:,} rows of {table} have a {column} after now, and are read then: its clock is ahead of "
                "this machine's, or the times are wrong."
            )

    def _late(self, start: Start) -> Iterator[str]:
        """Yield a warning if rows came later than the lateness, so that no pull has read them."""
        expected = rows_before(self.source.name, self.store, start)
        if expected is None or start.low is None:
            return
        try:
            with self.warehouse.read(self.arrivals.count(start.low)) as rows:
                late = int(rows.read_all().column(0)[0].as_py()) - expected
        except TooMuchToRead as error:
            yield f"Rows that came later than the lateness are not counted: {error.what}"
            return
        if late > 0:
            yield (
                f"{late:,} rows of {self.arrivals.table} came later than the lateness of "
                f"{self.arrivals.shown_lateness}, and were not read: raise it in the profile. --since reads them, and "
                "once more those that are no longer known."
            )


class _Pull:
    """One pull, while its source's lock is held."""

    def __init__(self, puller: Puller, con: duckdb.DuckDBPyConnection, start: Start, warnings: list[str]) -> None:
        self._of, self._con, self._start = puller, con, start
        self._mark, self._number, self._position = start.mark, start.number, start.position
        self._said = warnings
        self._warnings: dict[str, None] = {}  # of batches, each once
        shown = puller.arrivals.shown(start.low)
        self._report = PullReport(puller.source.name, *puller.arrivals.order[:2], shown, "")

    def run(self, high: int | None, wanted: int, progress: Progress | None) -> PullReport:
        of, pending, reached, least = self._of, list[pa.Table](), self._position, ALL
        known = known_rows(self._con, of.source.name, of.store, self._start.low)
        with of.warehouse.read(of.arrivals.read(self._columns(known), self._start.low, high)) as reader:
            for rows in _pieces(reader, of.batch_rows):
                _check_order(rows, least)
                least, new = _last([rows]), known.new(rows)
                if _full([*pending, new], of.batch_rows):
                    self._ingest(pending, _last(pending), more=True)
                    pending = []
                pending += [new] if len(new) else []
                reached = least
                self._count(read=len(rows), known=len(rows) - len(new))
                if progress is not None:
                    progress(self._report.read, max(wanted, self._report.read))
        self._end(pending, reached)
        self._say_unknown(known)
        return replace(
            self._report,
            until=of.arrivals.shown(self._position),
            version=of.lake.version(of.source.name) or 0,
            warnings=(*self._said, *list(self._warnings)[:_WARNINGS]),
        )

    def _columns(self, known: Known) -> list[str]:
        """Return the columns to read: the source's, and those of which digests were made.

        Raises:
            Conflict: One of these is no longer there.
        """
        names = dict.fromkeys((*self._of.source.columns, *known.columns))
        if len(names) > len(self._of.source.columns):
            there = self._of.warehouse.columns(self._of.arrivals.table)
            if missing := [name for name in known.columns if name not in there]:
                raise Conflict(
                    f"{self._of.arrivals.table} no longer has column {missing[0]!r}, by which rows are recognised that "
                    "were read before.",
                    fix=f"go on with --since: {self._of.arrivals.shown(self._position)} is the last arrival that was "
                    "read.",
                )
        return [*names]

    def _end(self, pending: list[pa.Table], reached: int | None) -> None:
        """Ingest the last rows; without any, only the position may have changed."""
        least = [each for each in (self._position, reached) if each is not None]
        if self._start.floor != ALL:
            least.append(self._start.floor)
        if pending or (least and max(least) != self._position):
            self._ingest(pending, max(least), more=False)

    def _ingest(self, pending: list[pa.Table], reached: int, *, more: bool) -> None:
        """Ingest rows as the next batch, after which the position is `reached`, unless it is further already."""
        of, source = self._of, self._of.source
        until = reached if self._position is None else max(self._position, reached)
        rows = pa.concat_tables(pending) if pending else None
        made = b""
        if rows is not None:
            found = digests(self._con, rows, tuple(source.columns))
            made = found.tobytes()
        self._number += 1
        of.store.record(
            PulledBatch(
                source.name, self._number, *of.arrivals.order, tuple(sorted(source.columns)), self._since, until,
                0 if rows is None else len(rows), of.wall.now(), self._start.floor,
            ),
            made,
        )  # fmt: skip
        done = of.ingestor.ingest(
            source,
            [] if rows is None else rows.select([*source.columns]),
            keyings=of.keyings,
            batch_id=batch_key(source.name, self._number),
            marks={POSITION: as_mark(until), NUMBER: self._number},
            since={NUMBER: self._mark},
            more=more,
        )
        self._mark, self._position = self._number, until
        if rows is not None:
            again = max(until - of.arrivals.lateness, ALL)
            kept = found[found["arrival"] >= again]
            of.store.keep(source.name, self._number, kept.tobytes(), max(again, self._start.floor))
            of.store.shed(source.name, again, _KEPT)
        self._count(rows=done.rows, quarantined=done.quarantined, batches=1)
        for reason, count in done.reasons.items():
            self._report.reasons[reason] = self._report.reasons.get(reason, 0) + count
        self._warnings |= dict.fromkeys(done.warnings)
        self._report = replace(self._report, changed=(*self._report.changed, *done.changed))

    @property
    def _since(self) -> int | None:
        """The position, or where the pull was told to begin."""
        told = None if self._start.floor == ALL else self._start.floor
        return told if self._position is None else self._position

    def _count(self, **more: int) -> None:
        self._report = replace(self._report, **{name: getattr(self._report, name) + n for name, n in more.items()})

    def _say_unknown(self, known: Known) -> None:
        if known.rows and self._report.read and not self._report.known:
            self._said.append(
                f"None of the {known.rows:,} rows of {self._of.arrivals.table} that are read again is as it was: if it "
                "was replaced, rows may have been ingested twice."
            )


def _pieces(reader: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield the rows in pieces of the size of a batch."""
    group, count, size = list[pa.RecordBatch](), 0, 0
    for batch in reader:
        for first in range(0, batch.num_rows, rows):
            part = batch.slice(first, rows)
            if group and (count + part.num_rows > rows or size + part.nbytes > _BATCH_BYTES):
                yield pa.Table.from_batches(group)
                group, count, size = [], 0, 0
            group, count, size = [*group, part], count + part.num_rows, size + part.nbytes
    if group:
        yield pa.Table.from_batches(group)


def _check_order(rows: pa.Table, least: int) -> None:
    """Raise if rows are not in the order of their arrival, or one arrived before `least`: a kill would lose some.

    Raises:
        Corrupt: Nothing of the rows is to be ingested.
    """
    found = numbers(rows[ARRIVAL])
    if found[0] < least or (found[1:] < found[:-1]).any():
        raise Corrupt(
            "The warehouse's rows are not in the order of their arrival, in which they were asked for.",
            fix="run it again, and report it: this is a defect.",
        )


def _full(pending: list[pa.Table], rows: int) -> bool:
    """Return whether the last of some pieces is too much for one batch with those before."""
    if len(pending) < 2 or not len(pending[-1]):
        return False
    return sum(map(len, pending)) > rows or sum(each.nbytes for each in pending) > _BATCH_BYTES


def _last(pieces: list[pa.Table]) -> int:
    """Return the largest arrival."""
    return int(numbers(pieces[-1][ARRIVAL])[-1])
