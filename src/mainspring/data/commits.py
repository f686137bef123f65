"""Dataset commits: one version of each table under one name, so that training can say exactly what it read."""

from __future__ import annotations

import hashlib

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import Clock
from mainspring.data.model import DatasetCommit
from mainspring.data.ports import LakeTables, Snapshots


def commit(lake: LakeTables, snapshots: Snapshots, clock: Clock, message: str = "") -> DatasetCommit:
    """Store the newest version of every table as a commit and return it.

    Where nothing changed since the newest commit, that one is returned and no other is made.
    """
    newest = next(iter(snapshots.log(1)), None)
    versions = {table: version for table in lake.tables() if (version := lake.version(table)) is not None}
    if newest is not None and dict(newest.versions) == versions:
        return newest
    parent = None if newest is None else newest.id
    made = DatasetCommit(_digest(versions, parent), versions, parent, message, clock.now())
    snapshots.add(made)
    return made


def _digest(versions: dict[str, int], parent: str | None) -> str:
    content = msgspec.json.encode({"parent": parent, "versions": versions}, order="deterministic")
    return hashlib.sha256(content).hexdigest()[:32]


def vacuum(lake: LakeTables, snapshots: Snapshots, dry_run: bool = False) -> dict[str, int]:
    """Delete every file that no kept version needs and return, for each table, how many those are.

    Kept are the versions that a tag or the newest commit names, and each table's newest.

    Raises:
        NotFound: A version that a tag names is gone already; nothing of that table was deleted.
    """
    named = [*snapshots.tags().values(), *(newest.id for newest in snapshots.log(1))]
    commits = [snapshots.get(name) for name in dict.fromkeys(named)]
    deleted = {}
    for table in lake.tables():
        keep = sorted({found.versions[table] for found in commits if table in found.versions})
        deleted[table] = lake.vacuum(table, keep, dry_run=dry_run)
    return deleted


def version_of(found: DatasetCommit, table: str) -> int:
    """Return the version of a table that a commit names.

    Raises:
        NotFound: The table was not there at the time.
    """
    if table not in found.versions:
        raise NotFound(
            f"Dataset commit {found.id} has no table {table!r}.", fix=f"it has {', '.join(sorted(found.versions))}."
        )
    return found.versions[table]
