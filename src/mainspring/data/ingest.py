"""Ingestion of user data into a source's table, in loads of up to `load_rows`.

A load is staged as a whole (`data.staging`), then written in chunks, each of which is one version of the table
(`data.landing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.core.errors import Conflict
from mainspring.core.locks import Locks
from mainspring.core.time import Clock, format_duration, format_instant
from mainspring.data import duck
from mainspring.data.arrow import landed_schema
from mainspring.data.arrow_coercion import together, without_nothing
from mainspring.data.content import digest_rows
from mainspring.data.evolution import evolution, evolve
from mainspring.data.heads import Heads
from mainspring.data.keyings import Keyings, check_keyings, complete_keyings, keyings_there, lacking
from mainspring.data.landing import LOAD_ROWS, Landing, Progress, Tally
from mainspring.data.model import RECORD_PREFIX, IngestReport, Source
from mainspring.data.ports import NO_MARKS, LakeTables
from mainspring.data.readers import Input, loads, open_input
from mainspring.data.signed_files import UNSIGNED, signed_rows
from mainspring.data.versions import complete_versions, lacking_versions
from mainspring.data.write_keys import LAST_LOAD

if TYPE_CHECKING:
    import duckdb


class Ingestor:
    """Ingests data; one ingestion per source at a time, across processes.

    Args:
        batch_rows: Maximum number of rows per table version.
        load_rows: Number of rows checked together, at most `LOAD_ROWS`. Resuming an interrupted ingestion needs the
            same number.
        many_rows: Number of new rows after which each entity's newest row is stored anew (`data.heads`).
        wait_s: Seconds to wait for another ingestion of the same source.
        wall: Clock that decides whether an event is in the future; by default `clock`, which may replay past time.
        scratch: Folder for copies of signed files; by default a temporary one.
    """

    def __init__(
        self,
        lake: LakeTables,
        locks: Locks,
        clock: Clock,
        batch_rows: int = LOAD_ROWS,
        *,
        load_rows: int = LOAD_ROWS,
        memory_limit: str = "2GB",
        many_rows: int = 500_000,
        wait_s: float = 600.0,
        wall: Clock | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._lake = lake
        self._locks = locks
        self._clock = clock
        self._batch_rows = batch_rows
        self._load_rows = min(load_rows, LOAD_ROWS)
        self._memory_limit = memory_limit
        self._database: duckdb.DuckDBPyConnection | None = None
        self._many_rows = many_rows
        self._wait_s = wait_s
        self._wall = wall or clock
        self._scratch = scratch

    def ingest(
        self,
        source: Source,
        data: Any,
        *,
        keyings: Keyings,
        batch_id: str | None = None,
        nulls: Sequence[str] = (),
        progress: Progress | None = None,
        marks: Mapping[str, int] = NO_MARKS,
        since: Mapping[str, int | None] = NO_MARKS,
        more: bool = False,
    ) -> IngestReport:
        """Ingest `data`, any input that `data.readers.open_input` accepts.

        Args:
            keyings: Entity name -> its key columns; the flag `_record_<entity>` is maintained for each, and for the
                table's existing keyings.
            nulls: Unquoted CSV texts that mean null, in addition to the empty field.
            batch_id: Identity of the batch, instead of its content digest: ingesting the same id again has no effect.
            progress: Called with the number of rows done and the total, if known.
            marks: Marks to store in the source's table (`LakeTables.append`): no later than with the last row, and not
                before it. The data is one load; `batch_id` is given.
            since: Those of the marks that decide whether the batch is next, with their values before it, None for none.
                If they have the values of `marks` already, nothing is done.
            more: Whether newer data follows at once, so that the age of the newest event is not judged yet.

        Raises:
            NotFound: The file does not exist.
            InvalidData: The data as a whole does not fit the source, or its types differ from the table's.
            StorageFull: No space; every written version is complete, and the same call resumes.
            Conflict: Another ingestion of the source did not end within `wait_s`; or other marks than `since`.
        """
        keyings = check_keyings(source, keyings)

        def read(data: Any) -> Input:
            return open_input(data, source, self._batch_rows, nulls)

        opened, unsigned = read(data), ""
        with self._alone(source), self._session() as con, ExitStack() as stack:
            if source.signed_by:
                scratch = None if self._scratch is None else self._scratch / source.name
                opened, unsigned = stack.enter_context(signed_rows(opened, data, source, read, scratch))
            tally = Tally(opened.total, progress)
            if since and self._marked(source, marks, since):
                return IngestReport(source.name, 0, 0, opened.total or 0, self._lake.version(source.name) or 0)
            changed = self._conform(con, source, keyings)
            keyings = {**keyings_there(self._lake, source), **keyings}
            strict = opened.digest is not None  # for a file, a column without any fitting value is a mistake of columns
            heads = Heads(con, self._lake, source, keyings, self._many_rows)
            landing = Landing(
                con, self._lake, source, keyings, heads, self._batch_rows, opened.name, strict, tally, self._wall.now(),
                marks,
            )  # fmt: skip
            for number, pieces in enumerate(loads(opened.pieces, self._load_rows)):
                raw = together(pieces)
                # Rows that differ only in dropped nanoseconds are different rows.
                known_by = batch_id or opened.digest or digest_rows(without_nothing(raw))
                known_by += UNSIGNED if unsigned else ""
                with duck.duck_errors(source.name):
                    landing.land(tally.drop(raw), f"{known_by}.{number}")
            if self._lake.version(source.name) is None:
                self._lake.append(source.name, [], landed_schema(source, keyings), key="created")
            if marks and self._lake.marks(source.name, marks) != marks:  # no row of the load is in the table
                self._lake.append(source.name, [], self._schema(source), key=f"{batch_id}.{LAST_LOAD}", marks=marks)
            with duck.duck_errors(source.name):
                heads.settle()
            warnings = [
                *([f"{source.name} takes signed files alone: {unsigned}."] if unsigned else []),
                *_extra(opened, source),
                *_as_read_first(tally, nulls),
                *_noticed(landing),
                *([] if more else self._stale(source, heads)),
            ]
        return IngestReport(
            source.name,
            tally.landed,
            tally.quarantined,
            tally.already,
            self._lake.version(source.name) or 0,
            tally.reasons,
            tuple(warnings),
            changed,
        )

    def needed(self, source: Source, keyings: Keyings) -> tuple[str, ...]:
        """Return the changes that `conform` would make to the source's table, a line each.

        Raises:
            InvalidData: The table cannot be adapted to the source's declaration; the fix says what to do.
        """
        if self._lake.version(source.name) is None:
            return ()
        lines = evolution(self._lake.scan(source.name).schema or pa.schema([]), source).lines
        missing = lacking(self._lake, source, check_keyings(source, keyings))
        versions = lacking_versions(self._session(), self._lake, source)
        return (
            *lines,
            *versions,
            *(f"+ {RECORD_PREFIX}{name} for {', '.join(keys)}" for name, keys in missing.items()),
        )

    def conform(self, source: Source, keyings: Keyings) -> tuple[str, ...]:
        """Adapt the source's table to the declaration: new columns, wider types, and flags for every existing row.

        Flags are computed for keyings that the table lacks, or has for other columns. Returns the changes, a line each;
        without changes no version is made.

        Raises:
            InvalidData: As `needed`; the table is unchanged.
        """
        with self._alone(source), self._session() as con:
            return self._conform(con, source, check_keyings(source, keyings))

    def _conform(self, con: duckdb.DuckDBPyConnection, source: Source, keyings: Keyings) -> tuple[str, ...]:
        lines = self.needed(source, keyings)
        if lines:
            with duck.duck_errors(source.name):
                evolve(con, self._lake, source, self._batch_rows)
                if lacking_versions(con, self._lake, source):
                    complete_versions(con, self._lake, source, keyings, self._batch_rows)
                complete_keyings(con, self._lake, source, keyings, self._batch_rows)
        return lines

    def _marked(self, source: Source, marks: Mapping[str, int], since: Mapping[str, int | None]) -> bool:
        """Return whether a batch was ingested before.

        Raises:
            Conflict: It is not the next one either.
        """
        there = self._lake.marks(source.name, since)
        if there == {name: marks[name] for name in since}:
            return True
        if there != {name: mark for name, mark in since.items() if mark is not None}:
            raise Conflict(
                f"Table {source.name!r} has the marks {there}; the batch follows {dict(since)}.",
                fix="read again from the table's marks.",
                retryable=True,
            )
        return False

    def _schema(self, source: Source) -> pa.Schema:
        return self._lake.scan(source.name).schema or pa.schema([])

    def _alone(self, source: Source) -> Any:
        return self._locks.hold(f"ingest.{source.name}", wait_s=self._wait_s)

    def _session(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor with its own temporary tables: opening a new database costs more than a small load."""
        if self._database is None:
            self._database = duck.connect(self._memory_limit)
        return self._database.cursor()

    def _stale(self, source: Source, heads: Heads) -> Iterator[str]:
        limits = [check.within for check in source.checks if check.kind == "fresh"]
        if not limits:
            return
        newest = heads.newest()[1]
        if newest is None:
            yield f"{source.name} has no events yet."
        elif (age := self._clock.now() - newest) > min(limits):
            yield (
                f"The newest event of {source.name} is {format_duration(age)} old, "
                f"more than {format_duration(min(limits))}."
            )


def _noticed(landing: Landing) -> Iterator[str]:
    source, tally = landing.source, landing.tally
    if tally.future:
        yield (
            f"{tally.future:,} of the rows have an event time after now ({format_instant(landing.now)}), the last "
            f"at {format_instant(tally.latest)}: no feature uses them before that time. If the times are wrong, "
            f"check the unit and the time zone of {source.event_time!r}."
        )
    if tally.below:
        yield (f"{tally.below:,} of the rows have times with fractions of a microsecond, which were dropped.")
    for entity, rows in tally.keyless.items():
        keys = ", ".join(landing.keyings[entity])
        yield f"{rows:,} of the rows have a null in {keys}: they were ingested, but belong to no {entity}."


def _as_read_first(tally: Tally, nulls: Sequence[str]) -> Iterator[str]:
    """Warn that the `nulls` setting does not change rows ingested before: a batch is identified by its bytes.

    If the setting were part of the identity, the rows would be ingested twice.
    """
    if nulls and tally.already:
        yield (
            f"{tally.already:,} of the rows had been ingested before and keep their values: null as "
            f"{' or '.join(map(repr, nulls))} applies to them only if it was given then. If it was not, restore "
            "the table to the state before, `mainspring data restore`, and ingest the file again."
        )


def _extra(opened: Input, source: Source) -> Iterator[str]:
    if opened.extra:
        names = ", ".join(opened.extra)
        yield f"{opened.name} has columns that source {source.name!r} does not declare; they were ignored: {names}."
