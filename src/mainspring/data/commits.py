"""Dataset commits: one version of each table under one id, so that a training can record exactly the data it read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import Clock
from mainspring.data.model import DERIVED_PREFIXES, DatasetCommit
from mainspring.data.ports import LakeTables, Snapshots

RESTORING = "restoring"  # tag that exists during a restore; with suffix `.<table>` for a single table
_SHORTEST = 6  # minimum length of an abbreviated id
_SEARCHED = 100_000


def data_tables(lake: LakeTables) -> list[str]:
    """Return the names of the data tables, without derived ones, which can be rebuilt."""
    return [table for table in lake.tables() if not table.startswith(DERIVED_PREFIXES)]


def commit(lake: LakeTables, snapshots: Snapshots, clock: Clock, message: str = "") -> DatasetCommit:
    """Store the newest version of every table as a commit and return it.

    If nothing changed since the newest commit, return that one.

    Raises:
        Conflict: A restore is running or was interrupted, so only some tables may have been restored.
    """
    for tag in unfinished(snapshots):
        _, _, table = tag.partition(".")
        only = f" --table {table}" if table else ""
        target = snapshots.get(tag).id
        raise Conflict(
            f"The tables are being restored to dataset commit {target}.",
            fix=f"wait until the restore is done; if it was interrupted, run `mainspring data restore {target}{only}` "
            "again.",
            retryable=True,
        )
    return record(lake, snapshots, clock, message)


def record(lake: LakeTables, snapshots: Snapshots, clock: Clock, message: str) -> DatasetCommit:
    """Commit as `commit` does, even during a restore."""
    newest = next(iter(snapshots.log(1)), None)
    versions = {table: version for table in data_tables(lake) if (version := lake.version(table)) is not None}
    if newest is not None and dict(newest.versions) == versions:
        return newest
    parent = None if newest is None else newest.id
    made = DatasetCommit(_digest(versions, parent), versions, parent, message, clock.now())
    snapshots.add(made)
    return made


def unfinished(snapshots: Snapshots) -> list[str]:
    """Return the tags of restores that are running or were interrupted."""
    return [tag for tag in snapshots.tags() if tag == RESTORING or tag.startswith(f"{RESTORING}.")]


def find(snapshots: Snapshots, name: str) -> DatasetCommit:
    """Return the commit with this id, tag, or unambiguous id prefix.

    Raises:
        NotFound: There is no such commit.
        Invalid: Several ids have this prefix.
    """
    try:
        return snapshots.get(name)
    except NotFound:
        if len(name) < _SHORTEST:
            raise
        found = [each for each in snapshots.log(_SEARCHED) if each.id.startswith(name)]
        if not found:
            raise
    if len(found) > 1:
        raise Invalid(
            f"{len(found)} dataset commits begin with {name!r}.", fix=f"write more characters of {found[0].id}."
        )
    return found[0]


def _digest(versions: dict[str, int], parent: str | None) -> str:
    content = msgspec.json.encode({"parent": parent, "versions": versions}, order="deterministic")
    return hashlib.sha256(content).hexdigest()[:32]


def vacuum(lake: LakeTables, snapshots: Snapshots, dry_run: bool = False) -> dict[str, int]:
    """Delete every file that no kept version needs; return table -> number of files.

    Kept are the versions named by a tag or by the newest commit, and each table's newest version.

    Raises:
        NotFound: A version that a tag names no longer exists; nothing of that table was deleted.
    """
    named = [*snapshots.tags().values(), *(newest.id for newest in snapshots.log(1))]
    commits = [snapshots.get(name) for name in dict.fromkeys(named)]
    return {table: lake.vacuum(table, sorted(keep), dry_run=dry_run) for table, keep in _kept(lake, commits)}


def _kept(lake: LakeTables, commits: list[DatasetCommit]) -> Iterator[tuple[str, set[int]]]:
    for table in lake.tables():
        # Tables that ingestion does not fill are never restored, and their old versions may be gone.
        landed = lake.describe(table).landed
        yield table, {found.versions[table] for found in commits if landed and table in found.versions}


def version_of(found: DatasetCommit, table: str) -> int:
    """Return a table's version in a commit.

    Raises:
        NotFound: The commit lacks the table.
    """
    if table not in found.versions:
        raise NotFound(
            f"Dataset commit {found.id} has no table {table!r}.",
            fix=f"it has {', '.join(sorted(found.versions)) or 'none'}; a source gets its table by "
            f"`mainspring ingest {table} FILE`.",
        )
    return found.versions[table]
