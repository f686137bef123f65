"""Dataset commits: one version of each table under one name, so that training can say exactly what it read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import Clock
from mainspring.data.model import DERIVED_PREFIXES, DatasetCommit
from mainspring.data.ports import LakeTables, Snapshots

RESTORING = "restoring"  # a tag that stands while tables are being restored; with `.<table>`, while one is
_SHORTEST = 6  # characters of an id that stand for it
_SEARCHED = 100_000


def data_tables(lake: LakeTables) -> list[str]:
    """Return the names of the tables that are data: those made from others, and made again at need, are not."""
    return [table for table in lake.tables() if not table.startswith(DERIVED_PREFIXES)]


def commit(lake: LakeTables, snapshots: Snapshots, clock: Clock, message: str = "") -> DatasetCommit:
    """Store the newest version of every table as a commit and return it.

    Where nothing changed since the newest commit, that one is returned and no other is made.

    Raises:
        Conflict: A restore is going on, or was cut short: some tables are as they were, others are not yet.
    """
    for tag in unfinished(snapshots):
        _, _, table = tag.partition(".")
        only = f" --table {table}" if table else ""
        target = snapshots.get(tag).id
        raise Conflict(
            f"The tables are being restored to dataset commit {target}.",
            fix=f"wait until that is done; if it was cut short, run `mainspring data restore {target}{only}` again.",
            retryable=True,
        )
    return record(lake, snapshots, clock, message)


def record(lake: LakeTables, snapshots: Snapshots, clock: Clock, message: str) -> DatasetCommit:
    """As `commit`, whatever is going on."""
    newest = next(iter(snapshots.log(1)), None)
    versions = {table: version for table in data_tables(lake) if (version := lake.version(table)) is not None}
    if newest is not None and dict(newest.versions) == versions:
        return newest
    parent = None if newest is None else newest.id
    made = DatasetCommit(_digest(versions, parent), versions, parent, message, clock.now())
    snapshots.add(made)
    return made


def unfinished(snapshots: Snapshots) -> list[str]:
    """Return the tags of restores that are going on, or were cut short."""
    return [tag for tag in snapshots.tags() if tag == RESTORING or tag.startswith(f"{RESTORING}.")]


def find(snapshots: Snapshots, name: str) -> DatasetCommit:
    """Return the commit with this id, tag, or beginning of an id, if no other begins so.

    Raises:
        NotFound: There is none.
        Invalid: Several ids begin so.
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
        raise Invalid(f"{len(found)} dataset commits begin with {name!r}.", fix=f"write more of {found[0].id}.")
    return found[0]


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
    return {table: lake.vacuum(table, sorted(keep), dry_run=dry_run) for table, keep in _kept(lake, commits)}


def _kept(lake: LakeTables, commits: list[DatasetCommit]) -> Iterator[tuple[str, set[int]]]:
    for table in lake.tables():
        # Nobody goes back in a table that was not landed, and its old versions may be gone.
        landed = lake.describe(table).landed
        yield table, {found.versions[table] for found in commits if landed and table in found.versions}


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
