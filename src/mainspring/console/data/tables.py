"""View models of the pages of tables, for the templates and the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mainspring.console.background_cache import Looking
from mainspring.console.data.commits import PROFILED_ROWS, SHOWN_COMMITS, tags_of
from mainspring.console.features.values import Seen, project_lineage
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.time import from_datetime
from mainspring.data.model import DERIVED_PREFIXES, QUARANTINE_SUFFIX, Check, Source
from mainspring.operations.data import lineage as graph
from mainspring.operations.data.lineage import Lineage
from mainspring.operations.data.tables import CommitChange, Extent, changes_of, extent, newest, quarantine_reasons
from mainspring.operations.ingest import landed, quarantined
from mainspring.operations.revealing import pseudonyms, revealed
from mainspring.project import Project
from mainspring.security.model import Principal

if TYPE_CHECKING:
    from mainspring.data.profile import TableProfile

FRESH, LATE, EMPTY, UNKNOWN = "fresh", "late", "empty", "unknown"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One source in the list. `extent` and `newest` are `None` if it has no data, or there is a problem."""

    name: str
    description: str
    owner: str
    extent: Extent | None
    newest: int | None  # the latest event, UTC epoch microseconds
    quarantined: int | None
    checks: int
    pii: int
    state: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class OtherTable:
    """A table that no source declares: predictions, quarantines of former sources."""

    name: str
    extent: Extent | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class TableList:
    sources: tuple[TableRow, ...]
    others: tuple[OtherTable, ...]
    commits: int
    now: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a source. `role`: event time, recorded time, id, retraction, or the entities whose key it is."""

    name: str
    dtype: str
    role: str
    pii: bool
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourcePage:
    """One source, from metadata alone, and the reasons for its quarantined rows."""

    row: TableRow
    event_time: str
    recorded_time: str | None
    lag_us: int
    columns: tuple[Column, ...]
    checks: tuple[str, ...]
    reasons: Mapping[str, int]
    changes: tuple[CommitChange, ...]
    tags: Mapping[str, tuple[str, ...]]  # commit id -> tags
    views: tuple[str, ...]
    lineage: Lineage
    problems: tuple[str, ...]


def table_list(project: Project, seen: Callable[[Iterable[str]], list[str]] = list) -> TableList:
    """Return every source with its table, and the tables without a source.

    Args:
        seen: Returns those of some tables' names that the caller may see.
    """
    sources, now = project.definitions.sources, project.clock.now()
    rows = tuple(_row(project, sources[name], now) for name in seen(sorted(sources)))
    others: tuple[OtherTable, ...] = ()
    problem = None
    known = {*sources, *(name + QUARANTINE_SUFFIX for name in sources)}
    try:
        names = [name for name in project.lake.tables() if name not in known and not name.startswith(DERIVED_PREFIXES)]
        others = tuple(_other(project, name) for name in seen(names))
        commits = len(project.snapshots.log(SHOWN_COMMITS))
    except MainspringError as error:
        commits, problem = 0, str(error)
    return TableList(rows, others, commits, now, problem)


def find_source(project: Project, name: str) -> Source:
    """Return a declared source.

    Raises:
        NotFound: There is no source of this name.
    """
    source = project.definitions.sources.get(name)
    if source is None:
        raise NotFound(f"There is no source {name!r}.", fix="GET /api/data lists them.")
    return source


def source_rows(
    project: Project, principal: Principal, source: Source, of: str = "landed", limit: int = 20, *, reveal: bool = False
) -> list[dict[str, Any]]:
    """Return rows of a source, the last ingested first; of its quarantine where `of` is "quarantine".

    Instants are UTC epoch microseconds. Personal values are withheld, or pseudonyms where the caller may see these.

    Args:
        principal: The caller.
        reveal: Show it the personal values that it may see, with an event in the audit log.

    Raises:
        Denied: This caller may see no personal value.
    """
    shown: tuple[str, ...] = ()
    if reveal:
        action = "quarantine.reveal" if of == "quarantine" else "rows.reveal"
        shown = revealed(project, principal, source.name, source.pii, action, f"source/{source.name}")
    read = quarantined if of == "quarantine" else landed
    masks = pseudonyms(project, principal, source.name, source.pii)
    return [
        {name: from_datetime(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in read(project, source.name, limit, shown=shown, masks=masks)
    ]


def source_page(project: Project, source: Source) -> SourcePage:
    """Return the page of a source."""
    problems: list[str] = []
    reasons: Mapping[str, int] = {}
    changes: Sequence[CommitChange] = ()
    tags: dict[str, tuple[str, ...]] = {}
    try:
        reasons = quarantine_reasons(project.lake, source)
        changes = changes_of(source.name, project.snapshots.log(SHOWN_COMMITS))
        tags = tags_of(project)
    except MainspringError as error:
        problems.append(str(error))
    whole, problem = project_lineage(project)
    views = [view for view in project.definitions.views.values() if view.source.name == source.name]
    keys: dict[str, list[str]] = {}
    for view in views:
        for key in view.entity.keys:
            if view.entity.name not in keys.setdefault(key, []):
                keys[key].append(view.entity.name)
    return SourcePage(
        row=_row(project, source, project.clock.now()),
        event_time=source.event_time,
        recorded_time=source.recorded_time,
        lag_us=source.lag_us,
        columns=tuple(_column(source, name, keys.get(name, ())) for name in source.columns),
        checks=tuple(map(worded, source.checks)),
        reasons=reasons,
        changes=tuple(changes),
        tags=tags,
        views=tuple(sorted(view.name for view in views)),
        lineage=whole.around(graph.SOURCE, source.name),
        problems=(*problems, *([problem] if problem else [])),
    )


def profiled(project: Project, looking: Looking, source: Source) -> Seen[TableProfile]:
    """Return the profile of the source's columns, if it is ready soon."""
    from mainspring.data.profile import profile

    try:
        scan = project.lake.scan(source.name)
        rows = extent(scan).rows
        if rows > PROFILED_ROWS:
            error = Invalid(f"The table has {rows:,} rows; at most {PROFILED_ROWS:,} are counted here.")
            return Seen.failed(error)
        ready, found = looking.at(
            ("profile", source.name, scan.version), lambda: profile(scan, source, memory_limit="512MB")
        )
    except NotFound:
        return Seen(True, None, None)
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)


def worded(check: Check) -> str:
    """Return a check as one line."""
    from mainspring.core.time import format_duration

    return f"fresh within {format_duration(check.within)}" if check.kind == "fresh" else str(check)


def _row(project: Project, source: Source, now: int) -> TableRow:
    held, last, quarantined, problem, state = None, None, None, None, FRESH
    allowed = min((check.within for check in source.checks if check.kind == "fresh"), default=None)
    try:
        scan = project.lake.scan(source.name)
        held, last = extent(scan), newest(scan, source.event_time)
        if allowed is not None and (last is None or now - last > allowed):
            state = LATE
    except NotFound:
        state = EMPTY
    except MainspringError as error:
        problem, state = str(error), UNKNOWN
    try:
        quarantined = extent(project.lake.scan(source.name + QUARANTINE_SUFFIX)).rows
    except NotFound:
        quarantined = 0
    except MainspringError as error:
        problem, state = str(error), UNKNOWN
    return TableRow(
        source.name,
        source.description,
        source.owner,
        held,
        last,
        quarantined,
        len(source.checks),
        len(source.pii),
        state,
        problem,
    )


def _other(project: Project, name: str) -> OtherTable:
    try:
        return OtherTable(name, extent(project.lake.scan(name)), None)
    except MainspringError as error:
        return OtherTable(name, None, str(error))


def _column(source: Source, name: str, entities: Sequence[str]) -> Column:
    roles = [f"key of {entity}" for entity in entities]
    if name == source.event_time:
        roles.insert(0, "event time")
    elif name == source.recorded_time:
        roles.insert(0, "recorded time")
    if name in source.id:
        roles.insert(0, "id")
    if name == source.retracted:
        roles.insert(0, "retraction")
    checks = tuple(_of_column(check, name) for check in source.checks if name in check.columns)
    return Column(name, source.columns[name].value, ", ".join(roles), name in source.pii, checks)


def _of_column(check: Check, name: str) -> str:
    """Return a check's condition on one of its columns."""
    if check.kind == "not_null":
        return "not null"
    if check.kind == "unique":
        others = ", ".join(column for column in check.columns if column != name)
        return f"unique with {others}" if others else "unique"
    return str(check).removeprefix(f"{name} ")
