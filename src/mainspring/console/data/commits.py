"""View models of the pages of dataset commits, for the templates and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.core.errors import Invalid, MainspringError
from mainspring.data.model import DatasetCommit
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.registry.searching import Column, Condition, Kind, RunQuery, RunRow

if TYPE_CHECKING:
    from mainspring.data.diff import TableDiff

SHOWN_COMMITS = 200
SHOWN_RUNS = 20
COMMIT_TAG = "dataset_commit"  # of runs and versions
PROFILED_ROWS = 50_000_000  # maximum that a page counts


@dataclass(frozen=True, slots=True)
class CommitRow:
    commit: DatasetCommit
    tags: tuple[str, ...]
    changed: tuple[str, ...]  # tables with another version than in its parent


@dataclass(frozen=True, slots=True)
class CommitTable:
    """One table in a commit, beside another commit. `rows` is `None` if the version can no longer be read."""

    name: str
    version: int | None
    rows: int | None
    before: int | None
    rows_before: int | None
    source: bool


@dataclass(frozen=True, slots=True)
class CommitPage:
    commit: DatasetCommit
    tags: tuple[str, ...]
    other: DatasetCommit | None  # the commit it is compared with
    tables: tuple[CommitTable, ...]
    choices: tuple[CommitRow, ...]
    runs: tuple[RunRow, ...]  # the newest that trained on it
    of_runs: int  # counted up to 1,000
    versions: tuple[ModelVersion, ...]

    @property
    def changed(self) -> int:
        return sum(table.version != table.before for table in self.tables)


def commit_list(project: Project) -> tuple[CommitRow, ...]:
    """Return the newest commits, newest first."""
    commits, tags = project.snapshots.log(SHOWN_COMMITS), tags_of(project)
    known = {commit.id: commit for commit in commits}
    return tuple(
        CommitRow(commit, tags.get(commit.id, ()), _changed(commit, known.get(commit.parent or "")))
        for commit in commits
    )


def commit_page(project: Project, name: str, to: str | None = None) -> CommitPage:
    """Return one commit beside its parent, or beside the commit `to`.

    Args:
        name, to: Ids or tags.

    Raises:
        NotFound: There is no such commit.
    """
    commit = project.snapshots.get(name)
    other = project.snapshots.get(to) if to else project.snapshots.get(commit.parent) if commit.parent else None
    tables = sorted({*commit.versions, *(other.versions if other else ())})
    trained = RunQuery((Condition(Column(Kind.TAG, COMMIT_TAG), "=", commit.id),), limit=SHOWN_RUNS)
    return CommitPage(
        commit,
        tags_of(project).get(commit.id, ()),
        other,
        tuple(_compared(project, table, commit, other) for table in tables),
        tuple(row for row in commit_list(project) if row.commit.id != commit.id)[:50],
        project.run_search.search(trained).runs,
        project.run_search.count(trained),
        tuple(each for each in project.versions.all() if each.tags.get(COMMIT_TAG) == commit.id),
    )


def differences(project: Project, looking: Looking, view: CommitPage) -> Seen[list[TableDiff]]:
    """Return the difference of the rows and columns of two commits, if it is ready soon."""
    from mainspring.data.diff import diff

    before, after = view.other, view.commit
    if before is None:
        return Seen(True, None, None)
    # For a table without a source it is unknown which columns identify a person.
    pii = {name: tuple(source.pii) for name, source in project.definitions.sources.items()}
    changed = [table for table in view.tables if table.version != table.before and table.name in pii]
    names = {table.name for table in changed}
    rows = sum((table.rows or 0) + (table.rows_before or 0) for table in changed)
    if rows > PROFILED_ROWS:
        return Seen.failed(Invalid(f"The tables have {rows:,} rows; at most {PROFILED_ROWS:,} are compared here."))
    key = ("difference", before.id, after.id)
    try:
        ready, found = looking.at(
            key,
            lambda: diff(
                project.lake, _only(before.versions, names), _only(after.versions, names), pii=pii, memory_limit="512MB"
            ),
        )
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)


def tags_of(project: Project) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for tag, commit in sorted(project.snapshots.tags().items()):
        found[commit] = (*found.get(commit, ()), tag)
    return found


def _changed(commit: DatasetCommit, parent: DatasetCommit | None) -> tuple[str, ...]:
    before = parent.versions if parent else {}
    tables = sorted({*commit.versions, *before})
    return tuple(table for table in tables if commit.versions.get(table) != before.get(table))


def _compared(project: Project, table: str, commit: DatasetCommit, other: DatasetCommit | None) -> CommitTable:
    version = commit.versions.get(table)
    before = other.versions.get(table) if other else None
    return CommitTable(
        table,
        version,
        _rows(project, table, version),
        before,
        _rows(project, table, before),
        table in project.definitions.sources,
    )


def _rows(project: Project, table: str, version: int | None) -> int | None:
    if version is None:
        return None
    try:
        return project.lake.describe(table, version).rows
    except MainspringError:
        return None


def _only(versions: Mapping[str, int], names: set[str]) -> dict[str, int]:
    return {name: version for name, version in versions.items() if name in names}
