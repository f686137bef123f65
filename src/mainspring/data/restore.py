"""Restoration of tables to the versions of a dataset commit, as new versions. Nothing is lost.

Restored are the tables that ingestion fills, each source's together with its quarantine and its dead letters, as
ingestion relies on all being consistent. Their marks go back too, so a stream reads its messages again. Other tables
are logs of events, such as predictions, and stay. A source's table that the commit lacks becomes empty.

A tag (`commits.RESTORING`) exists during a restore, so that no commit, and so no training, mixes restored and
unrestored tables. An interrupted restore leaves the tag until it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from mainspring.core.errors import NotFound
from mainspring.core.locks import Locks
from mainspring.core.time import Clock
from mainspring.data import commits
from mainspring.data.model import DatasetCommit, source_of
from mainspring.data.ports import LakeTables, Snapshots

Progress = Callable[[int, int], None]

_LOCK = "data.restore"


@dataclass(frozen=True, slots=True)
class RestoredTable:
    """Result for one table: `version` is the new version, None if nothing changed.

    `target` is the version whose rows it now has, None if it is empty because the commit lacks the table.
    """

    table: str
    version: int | None
    target: int | None
    rows_before: int
    rows: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """Result of a restore. `before` is the commit of the state before, `commit` that of the state after.

    `before` is None when an interrupted restore was completed, which had recorded it already. `left` are the untouched
    tables.
    """

    target: str
    before: str | None
    commit: str
    tables: tuple[RestoredTable, ...]
    left: tuple[str, ...]


def restore(
    lake: LakeTables,
    snapshots: Snapshots,
    locks: Locks,
    clock: Clock,
    name: str,
    *,
    source: str | None = None,
    settle: Callable[[list[str]], None] | None = None,
    progress: Progress | None = None,
    wait_s: float = 600.0,
) -> RestoreReport:
    """Restore every source's table, or only that of `source`, to the commit named `name`.

    Each table changes atomically; after a crash, the same call completes the rest. Ingestions are excluded meanwhile.

    Args:
        settle: Called with the names of the restored sources before the new commit is made, to update derived state.
        progress: Called with the number of tables done, and the total.
        wait_s: Seconds to wait for running ingestions.

    Raises:
        NotFound: There is no such commit, it lacks the table of `source`, or a version was vacuumed. Nothing changed.
        Conflict: An ingestion or another restore did not end within `wait_s`.
    """
    found = commits.find(snapshots, name)
    tag = commits.RESTORING if source is None else f"{commits.RESTORING}.{source}"
    with ExitStack() as stack:
        stack.enter_context(locks.hold(_LOCK, wait_s=wait_s))
        with ExitStack() as landing:
            wanted = _wanted(lake, found, source)
            sources = sorted({source_of(table) for table in wanted})
            for each in sources:
                landing.enter_context(locks.hold(f"ingest.{each}", wait_s=wait_s))
            wanted = _wanted(lake, found, source)
            _check(lake, snapshots, found, wanted)
            begun = commits.unfinished(snapshots)
            before = None
            if not begun:
                before = commits.record(lake, snapshots, clock, f"before the restore of {name}").id
            snapshots.tag(tag, found.id)
            tables = tuple(_restored(lake, wanted, progress))
        if settle is not None:
            settle(sources)
        made = commits.record(lake, snapshots, clock, f"restored {source or 'all'} to {name}")
        for over in begun if source is None else ():
            snapshots.untag(over)
        snapshots.untag(tag)
    left = [table for table in commits.data_tables(lake) if table not in wanted]
    return RestoreReport(found.id, before, made.id, tables, tuple(left))


def _wanted(lake: LakeTables, found: DatasetCommit, source: str | None) -> dict[str, int | None]:
    """Return table -> version to restore."""
    landed = [table for table in commits.data_tables(lake) if lake.describe(table).landed]
    if source is not None:
        commits.version_of(found, source)
        landed = [table for table in landed if source_of(table) == source]
    return {table: found.versions.get(table) for table in landed}


def _check(lake: LakeTables, snapshots: Snapshots, found: DatasetCommit, wanted: dict[str, int | None]) -> None:
    for table, version in wanted.items():
        if version is None:
            continue
        try:
            lake.scan(table, version)
        except NotFound:
            tags = [tag for tag in snapshots.tags() if not tag.startswith(commits.RESTORING)]
            raise NotFound(
                f"Version {version} of table {table!r}, which belongs to dataset commit {found.id}, was vacuumed. "
                f"A tag on the commit (`mainspring data tag NAME {found.id}`) would have kept it.",
                fix=f"restore another commit: the tags are {tags}.",
            ) from None


def _restored(lake: LakeTables, wanted: dict[str, int | None], progress: Progress | None) -> Iterator[RestoredTable]:
    for done, (table, target) in enumerate(wanted.items(), start=1):
        before = lake.describe(table).rows
        version = lake.restore(table, target)
        yield RestoredTable(table, version, target, before, lake.describe(table).rows)
        if progress is not None:
            progress(done, len(wanted))
