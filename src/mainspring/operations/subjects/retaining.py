"""Retention of rows: what is past its source's time is deleted from every version, or loses values, with a receipt.

The steps can be repeated: tables whose deletion was begun and not ended are forgotten again by the next run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import literal_sql, quote_name
from mainspring.core.ids import new_id
from mainspring.core.schema import DType
from mainspring.core.time import format_instant, parse_instant
from mainspring.data import duck
from mainspring.data.arrow import is_text
from mainspring.data.model import (
    DEAD_LETTERS_SUFFIX,
    HEADS_PREFIX,
    QUARANTINE_SUFFIX,
    KeyValue,
    Retention,
    Source,
    TableScan,
    source_of,
)
from mainspring.features.keys import typed_key
from mainspring.features.model import Entity
from mainspring.operations.auditing import audit
from mainspring.operations.subjects import documents
from mainspring.operations.subjects.erasing import LOCK, WAIT_S, Held, Plan, Told, commits_of, models_of, rebuild
from mainspring.operations.subjects.naming import Subject, key_values
from mainspring.operations.subjects.receipts import signed
from mainspring.project import Project
from mainspring.security.model import Erasure

ACTION = "retention.run"
_FIRST = -62_135_596_800_000_000  # the first instant of the calendar, UTC epoch microseconds
_EVENT = "_event"  # of heads
_AT_ONCE = 200_000  # rows


@dataclass(frozen=True, slots=True)
class Due:
    """A table with rows past a retention.

    Attributes:
        event: Column of the rows' time.
        before: Time before which rows are past it, UTC epoch microseconds.
        rows: Number of such rows in the newest version that nobody's hold keeps; 0 if older versions alone have some.
        untold: Number of those that stay as it cannot be told whether a hold keeps them.
        past: Whether a named older version has rows that nobody's hold keeps.
    """

    table: str
    source: Source
    retention: Retention
    event: str
    before: int
    rows: int = 0
    untold: int = 0
    past: bool = False

    def __bool__(self) -> bool:
        return self.rows > 0 or self.past

    @property
    def held(self) -> Held:
        """The entry of the receipt."""
        done = f"removed from {', '.join(self.retention.columns)}" if self.retention.columns else "deleted"
        why = f", kept for {self.retention.purpose}" if self.retention.purpose else ""
        return Held(f"lake/{self.table}", self.rows, how=f"{done} before {format_instant(self.before)}{why}")


def plan(project: Project) -> Plan:
    """Return what a run would do. Nothing is changed."""
    return _planned(project, _found(project))


def retain(project: Project, told: Told = lambda _: None) -> Erasure | None:
    """Delete what is past its retention from every version; return the record with its receipt, `None` if nothing is.

    Rows of subjects that are held stay as they are, and what may be theirs: quarantined rows without a readable key,
    dead letters, and all rows while a held subject's entity is no longer declared.

    Args:
        told: Called before each store.
    """
    with project.locks.hold(LOCK, wait_s=WAIT_S):
        found = _found(project)
        due = [each for each in found if each]
        begun = next((each for each in project.erasures.unfinished() if not each.entity), None)
        if not due and begun is None:
            return None
        project.audit.check()
        planned = _planned(project, found)
        sources = {each.source.name for each in due}
        with project.audit.together():
            if begun is None:
                begun = Erasure(new_id(), "", (), project.wall.now())
                project.erasures.begin(begun)
            else:  # which sources that run had changed is not known
                sources |= {name for name, source in project.definitions.sources.items() if source.retentions}
            audit(project, ACTION, f"erasure/{begun.id}", f"begun: {len(due)} tables")
        for each in due:
            told(f"lake/{each.table}")
            _apply(project, each)
        for table in project.lake.tables():
            if source_of(table).removeprefix(HEADS_PREFIX) in sources:
                project.lake.forget(table)
        documents.erase(project, [each for each in documents.declared(project) if each.source.name in sources], told)
        rebuild(project, [view for view in project.definitions.views.values() if view.source.name in sources], told)
        done = project.wall.now()
        receipt = signed(project, begun, planned, planned.held, None, "retention", done)
        with project.audit.together():
            project.erasures.finish(begun.id, receipt, done)
            audit(project, ACTION, f"erasure/{begun.id}", f"done: {sum(each.rows for each in due)} rows")
        return replace(begun, done_at=done, receipt=receipt)


def _planned(project: Project, found: Sequence[Due]) -> Plan:
    due = [each for each in found if each]
    untold: dict[str, int] = {}
    for each in found:
        untold[each.table] = max(untold.get(each.table, 0), each.untold)
    sources = {each.source.name for each in due}
    views = project.definitions.views.values()
    streams = project.definitions.streams
    tables, held = project.lake.tables(), _quotable(project)
    return Plan(
        [each.held for each in due],
        [view.name for view in views if view.source.name in sources],
        commits_of(project, {each.table for each in due}),
        models_of(project, sources),
        [f"messages of topic {streams[name].topic}" for name in sorted(sources & streams.keys())]
        + [
            f"lake/{name}{DEAD_LETTERS_SUFFIX}: kept, as they may quote subjects on hold"
            for name in sorted(sources)
            if name + DEAD_LETTERS_SUFFIX in tables and name in held
        ]
        + [
            f"lake/{table}: {count} rows kept, as it cannot be told whether they are of a subject on hold"
            for table, count in untold.items()
            if count
        ],
    )


def _found(project: Project) -> list[Due]:
    """Return what is past a retention, and what would be if it were not kept."""
    tables, now, found = {*project.lake.tables()}, project.wall.now(), []
    held = _quotable(project)
    for name, source in project.definitions.sources.items():
        times = {name: source.event_time, name + QUARANTINE_SUFFIX: source.event_time, name + DEAD_LETTERS_SUFFIX: "at"}
        for table in tables & times.keys():
            for retention in source.retentions:
                if table.endswith(DEAD_LETTERS_SUFFIX) and (retention.columns or name in held):
                    continue  # a message is kept or deleted as a whole, and whom it quotes cannot be told from a hold
                due = _counted(
                    project,
                    Due(table, source, retention, times[table], retention.before(now)),
                    project.lake.scan(table),
                )
                past = not due.rows and any(_counted(project, due, scan).rows for scan in _named(project, table))
                if due.rows or due.untold or past:
                    found.append(replace(due, past=past))
    return sorted(found, key=lambda each: (each.table, each.retention.columns))


def _quotable(project: Project) -> set[str]:
    """Return the sources whose dead letters are kept meanwhile, as they may quote a subject that is held."""
    entities = project.definitions.entities
    names = {hold.entity for hold in project.erasures.holds()}
    held = [{*entities[name].keys} if name in entities else set() for name in names]
    return {
        name
        for name, source in project.definitions.sources.items()
        if any(not each.columns for each in source.retentions) and any(keys <= source.columns.keys() for keys in held)
    }


def _named(project: Project, table: str) -> Iterator[TableScan]:
    """Yield the versions of a table that dataset commits and tags keep, each with the files that none before it has."""
    known = chain(project.snapshots.log(1_000_000), map(project.snapshots.get, project.snapshots.tags()))
    versions = {commit.versions[table] for commit in known if table in commit.versions}
    seen = {*(project.lake.scan(table).files or ())}
    for version in project.lake.readable(table, sorted(versions)):
        scan = project.lake.scan(table, version)
        files = None if scan.files is None else tuple(each for each in scan.files if each not in seen)
        seen.update(files or ())
        yield replace(scan, files=files)


def _counted(project: Project, due: Due, scan: TableScan) -> Due:
    """Return what a version of the table has."""
    schema = scan.schema if scan.rows is None else scan.rows.schema
    if schema is None or due.event not in schema.names:
        return due
    conditions = [] if is_text(schema.field(due.event).type) else [_is_past(due)]
    if due.retention.columns:
        there = [f"{quote_name(name)} IS NOT NULL" for name in due.retention.columns if name in schema.names]
        if not there:
            return due
        conditions.append(f"({' OR '.join(there)})")
    keys = {key for entity in project.definitions.entities.values() for key in entity.keys}
    needed = [name for name in schema.names if name in {due.event, *keys}]
    rows = untold = 0
    for batch in duck.batches(scan, needed, " AND ".join(conditions) or "true"):
        marks = [*_marks(project, due, pa.Table.from_batches([batch]))]
        rows, untold = rows + marks.count(True), untold + marks.count(None)
    return replace(due, rows=rows, untold=untold)


def _is_past(due: Due) -> str:
    return f"{quote_name(due.event)} < {literal_sql(due.before, DType.Timestamp)}"


def _marks(project: Project, due: Due, rows: pa.Table) -> list[bool | None]:
    """Return which rows are past the retention, are not held, and have a value to remove; `None` if it cannot be told.

    Args:
        rows: With the columns of values to remove, or only such rows that have some.
    """
    times = rows[due.event]
    if is_text(times.type):  # a quarantine
        events = [_instant(each) for each in times.to_pylist()]
    else:
        events = times.cast(pa.int64()).to_pylist()
    past = [event is not None and event < due.before for event in events]
    there = [rows[name].to_pylist() for name in due.retention.columns if name in rows.column_names]
    if there:
        some = {row for values in there for row, value in enumerate(values) if value is not None}
        past = [one and row in some for row, one in enumerate(past)]
    held, untold = _held(project, rows, quarantined=is_text(times.type))
    return [one and row not in held and (None if row in untold else True) for row, one in enumerate(past)]


def _instant(text: str | None) -> int | None:
    with suppress(Invalid, ValueError):
        return None if text is None else parse_instant(text)
    return None


def _held(project: Project, rows: pa.Table, *, quarantined: bool) -> tuple[set[int], set[int]]:
    """Return the rows of subjects that are held, and those of which it cannot be told whether they are."""
    holds: dict[str, set[bytes]] = {}
    for hold in project.erasures.holds():
        holds.setdefault(hold.entity, set()).add(hold.subject)
    found: set[int] = set()
    untold: set[int] = set()
    for name, digests in holds.items():
        entity = project.definitions.entities.get(name)
        if entity is None:  # it is no longer declared
            untold.update(range(len(rows)))
            continue
        if any(key not in rows.column_names for key in entity.keys):
            continue
        names: dict[str, list[int]] = {}
        for row, values in enumerate(zip(*(key_values(rows[key]) for key in entity.keys), strict=True)):
            if None not in values and (keys := _typed(entity, values)) is not None:
                names.setdefault(Subject(entity, keys).name, []).append(row)
            elif quarantined:
                untold.add(row)
        subjects = project.subject_keys.digests([*names])
        found.update(chain.from_iterable(each for each, one in zip(names.values(), subjects, strict=True)
                                         if one in digests))  # fmt: skip
    return found, untold


def _typed(entity: Entity, values: Sequence[Any]) -> dict[str, KeyValue] | None:
    """Return key values, of which a quarantine has all as text; `None` if they are none."""
    keys = dict(zip(entity.keys, values, strict=True))
    try:
        return {
            name: typed_key({name: entity.keys[name]}, {name: value}, "")[name] if isinstance(value, str) else value
            for name, value in keys.items()
        }
    except Invalid:
        return None


def _apply(project: Project, due: Due) -> None:
    def change(rows: pa.Table) -> pa.Table | None:
        past = _marks(project, due, rows)
        return _without(rows, past, due.retention.columns) if any(past) else None

    def left() -> Iterator[pa.RecordBatch]:
        for batch in duck.batches(scan):
            rows = pa.Table.from_batches([batch]).cast(schema)
            changed = change(rows)
            yield from (rows if changed is None else changed).to_batches()

    lake, key = project.lake, f"retention/{new_id()}"
    heads = HEADS_PREFIX + due.table
    if not due.retention.columns and heads in lake.tables():  # first: after a kill the rows are still due
        lake.expire(heads, _EVENT, due.before)
    if due.table.endswith(QUARANTINE_SUFFIX):
        with project.locks.hold(f"ingest.{due.source.name}", wait_s=WAIT_S):  # which appends to it
            scan = lake.scan(due.table)
            schema = lake.describe(due.table, scan.version).schema
            if _counted(project, due, scan).rows:
                lake.replace(due.table, left(), schema, key=key)
    elif not due.retention.columns and not project.erasures.holds():
        lake.expire(due.table, due.event, due.before)  # which reads no other column
    else:
        for since, until in pairwise(_spans(due, lake.scan(due.table))):
            lake.fold(due.table, due.event, since, until, change, key=f"{key}.{since}")


def _spans(due: Due, scan: TableScan) -> list[int]:
    """Return bounds of spans of time with about as many rows each: so many are changed at once, in memory."""
    event = quote_name(due.event)
    with duck.session() as con, duck.duck_errors(due.table, scan):
        duck.register(con, "due", scan)
        numbered = f"SELECT {event}, row_number() OVER (ORDER BY {event}) AS n FROM due WHERE {_is_past(due)}"
        found = con.execute(f"SELECT DISTINCT epoch_us({event}) FROM ({numbered}) WHERE n % {_AT_ONCE} = 0").fetchall()
    return [_FIRST, *sorted(at for (at,) in found), due.before]


def _without(rows: pa.Table, past: Sequence[bool | None], columns: Sequence[str]) -> pa.Table:
    if not columns:
        return rows.filter(pa.array([not each for each in past]))
    for name in columns:
        if name in rows.column_names:
            place, kind = rows.column_names.index(name), rows.schema.field(name)
            values: list[Any] = rows[name].to_pylist()
            left = [None if gone else value for gone, value in zip(past, values, strict=True)]
            rows = rows.set_column(place, kind, pa.array(left, kind.type))
    return rows
