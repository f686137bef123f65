"""Versions of a project's data: difference, profile and restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.data.commits import RESTORING, data_tables, find, version_of
from mainspring.data.commits import commit as make_commit
from mainspring.data.model import CHUNKS_PREFIX, QUARANTINE_SUFFIX, DatasetCommit, Source, TableScan
from mainspring.operations.apply import conform
from mainspring.operations.auditing import audit, begun
from mainspring.project import Project

if TYPE_CHECKING:
    from mainspring.data.diff import Progress as TableProgress
    from mainspring.data.diff import TableDiff
    from mainspring.data.profile import TableProfile
    from mainspring.data.restore import Progress, RestoreReport

NOW = "now"  # instead of a commit: the newest version of every table, committed or not


def versions(project: Project, name: str) -> dict[str, int]:
    """Return table -> version for a commit, a tag, or `now`.

    Raises:
        NotFound: There is no such commit or tag.
    """
    if name == NOW:
        tables = data_tables(project.lake)
        return {table: version for table in tables if (version := project.lake.version(table)) is not None}
    return dict(find(project.snapshots, name).versions)


def tag(project: Project, name: str, commit: str) -> str:
    """Tag a commit, another tag's commit, or `now`, which is committed first; return the commit's id.

    Raises:
        Invalid: `name` cannot be a tag.
        NotFound: There is no such commit.
    """
    if name == NOW or name.partition(".")[0] == RESTORING:
        raise Invalid(f"A tag cannot be named {name!r}: the name is reserved.", fix="choose another name.")
    found = commit_now(project, f"tagged {name}") if commit == NOW else find(project.snapshots, commit)
    with project.audit.together():
        project.snapshots.tag(name, found.id)
        audit(project, "data.tag", f"tag/{name}", found.id)
    return found.id


def untag(project: Project, name: str) -> None:
    """Delete a tag.

    Raises:
        NotFound: There is none of that name.
    """
    with project.audit.together():
        project.snapshots.untag(name)
        audit(project, "data.untag", f"tag/{name}")


def commit_now(project: Project, message: str) -> DatasetCommit:
    """Record the current version of every table in one dataset commit."""
    with begun(project, "data.commit", "data") as done:
        made = make_commit(project.lake, project.snapshots, project.wall, message)
        done(f"{made.id} {message}".strip())
    return made


def vacuum(project: Project, *, dry_run: bool) -> dict[str, int]:
    """Delete files that neither a tag, nor the newest commit, nor the newest version needs; return table -> files."""
    from mainspring.data.commits import vacuum as run

    if dry_run:
        return run(project.lake, project.snapshots, dry_run)
    with begun(project, "data.vacuum", "data") as done:
        deleted = run(project.lake, project.snapshots, dry_run)
        done(f"{sum(deleted.values())} files")
    return deleted


def diff(
    project: Project, before: str, after: str = NOW, *, table: str | None = None, progress: TableProgress | None = None
) -> list[TableDiff]:
    """Return the differences of the tables between two commits, tags, or `now`; without values of personal columns.

    A table that is not ingested, such as the predictions, is left out if a version of it no longer exists.

    Raises:
        NotFound: No such commit, neither of the two has the table, or a version was vacuumed.
    """
    from mainspring.data.diff import diff as differences

    old, new = versions(project, before), versions(project, after)
    if table is not None:
        if table not in old and table not in new:
            raise NotFound(f"Neither {before} nor {after} has a table {table!r}.", fix=f"they have {sorted(new)}.")
        compared = {table}
    else:
        compared = {name for name in {*old, *new} if _is_kept(project, name, old.get(name), new.get(name))}
    old, new = ({name: each for name, each in side.items() if name in compared} for side in (old, new))
    return differences(project.lake, old, new, pii=_personal(project), progress=progress)


def _is_kept(project: Project, table: str, *versions: int | None) -> bool:
    """Return whether a table is compared: old versions of logs, such as predictions, are deleted."""
    if project.lake.version(table) is None or project.lake.describe(table).landed:
        return True
    wanted = [version for version in versions if version is not None]
    return project.lake.readable(table, wanted) == wanted


def _personal(project: Project) -> dict[str, tuple[str, ...]]:
    found = {name: tuple(source.pii) for name, source in project.definitions.sources.items()}
    collections = project.definitions.collections.items()
    chunks = {f"{CHUNKS_PREFIX}{name}": tuple(each.source.pii) for name, each in collections}
    return {**found, **chunks, **{f"{name}{QUARANTINE_SUFFIX}": columns for name, columns in found.items()}}


def profile(
    project: Project, source: str, at: str = NOW, *, progress: Callable[[float], None] | None = None
) -> TableProfile:
    """Return the profile of a source's table.

    Raises:
        NotFound: No such source or commit, the source has no data, or the version was vacuumed.
    """
    from mainspring.data.profile import profile as profiled

    return profiled(scan(project, source, at), project.definitions.source(source), progress=progress)


def scan(project: Project, source: str, at: str = NOW) -> TableScan:
    """Return the files of a source's table.

    Raises:
        NotFound: No such source or commit, the source has no data, or the version was vacuumed.
    """
    project.definitions.source(source)
    return project.lake.scan(source, None if at == NOW else version_of(find(project.snapshots, at), source))


def restore(
    project: Project, name: str, *, source: str | None = None, progress: Progress | None = None
) -> RestoreReport:
    """Restore every source's table, or that of one source, to a commit or tag; see `data.restore`.

    The tables are then migrated to the current declarations, which repeats what `apply` did since the commit.

    Raises:
        NotFound: No such commit, or one of its versions was vacuumed. Nothing changed.
        InvalidData: A restored table cannot be migrated to its source's current declaration. Nothing changed.
        Conflict: An ingestion took too long.
    """
    from mainspring.data.restore import restore as restored

    definitions = project.definitions
    commit = find(project.snapshots, name)
    for declared in definitions.sources.values():
        if source in (None, declared.name) and declared.name in commit.versions:
            _check(project, declared, commit)

    def settle(sources: list[str]) -> None:
        for source_name in sources:
            if source_name in definitions.sources:
                conform(project, source_name)

    of = f"source/{source or '*'}"
    with begun(project, "data.restore", of) as done:
        report = restored(
            project.lake,
            project.snapshots,
            project.locks,
            project.wall,
            name,
            source=source,
            settle=settle,
            progress=progress,
        )
        done(f"to {commit.id}")
    return report


def _check(project: Project, source: Source, found: DatasetCommit) -> None:
    from mainspring.data.evolution import evolution

    try:
        evolution(project.lake.describe(source.name, found.versions[source.name]).schema, source)
    except InvalidData as error:
        raise InvalidData(
            f"The table of dataset commit {found.id} does not match the current definitions. {error.what}",
            fix="restore with the project's modules of that time.",
        ) from None
