"""Going back: every table's rows become again what a dataset commit names, as new versions. Nothing is lost by it.

Restored are the tables that ingestion fills, each source's with its quarantine: as ingestion goes on, it must find both
as they were together. Other tables are logs of what happened, such as the predictions, and stay. A source's table that
the commit does not have yet becomes empty.

A tag stands while tables are being restored (`commits.RESTORING`), so that no commit, and so no training, names some
tables as they were before and others as they are after. A restore that was cut short leaves it, until it is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from mainspring.core.errors import NotFound
from mainspring.core.locks import Locks
from mainspring.core.time import Clock
from mainspring.data import commits
from mainspring.data.model import QUARANTINE_SUFFIX, DatasetCommit
from mainspring.data.ports import LakeTables, Snapshots

Progress = Callable[[int, int], None]

_LOCK = "data.restore"


@dataclass(frozen=True, slots=True)
class RestoredTable:
    """What became of one table: `version` is the new one, None where it held those rows already.

    `target` is the version whose rows it has now, None where it is empty because the commit has no such table.
    """

    table: str
    version: int | None
    target: int | None
    rows_before: int
    rows: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did. `before` is the commit of what was there, `commit` that of what is there now.

    `before` is None where a restore that was cut short was finished: it named what was there. `left` are the tables
    that were not touched.
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
    """Restore every source's table, or that of `source` alone, to the commit that `name` names.

    Each table changes at once; after a crash in between, the same call does the rest. No ingestion goes on meanwhile.

    Args:
        settle: Called with the names of the restored sources before the new commit is made: what has to follow them.
        progress: Called with how many tables are done, of how many.
        wait_s: How long to wait for the ingestions that are going on.

    Raises:
        NotFound: No such commit; it has no table of `source`; or a version that it names was vacuumed. Nothing changed.
        Conflict: An ingestion, or another restore, went on for too long.
    """
    found = commits.find(snapshots, name)
    tag = commits.RESTORING if source is None else f"{commits.RESTORING}.{source}"
    with ExitStack() as stack:
        stack.enter_context(locks.hold(_LOCK, wait_s=wait_s))
        with ExitStack() as landing:
            wanted = _wanted(lake, found, source)
            sources = sorted({table.removesuffix(QUARANTINE_SUFFIX) for table in wanted})
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
    """Return each table to restore and the version whose rows it gets."""
    landed = [table for table in commits.data_tables(lake) if lake.describe(table).landed]
    if source is not None:
        commits.version_of(found, source)
        landed = [table for table in landed if table.removesuffix(QUARANTINE_SUFFIX) == source]
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
                f"Version {version} of table {table!r}, which dataset commit {found.id} names, was vacuumed. A tag on "
                f"the commit (`mainspring data tag NAME {found.id}`) would have kept it.",
                fix=f"restore another commit: the tags are {tags}.",
            ) from None


def _restored(lake: LakeTables, wanted: dict[str, int | None], progress: Progress | None) -> Iterator[RestoredTable]:
    for done, (table, target) in enumerate(wanted.items(), start=1):
        before = lake.describe(table).rows
        version = lake.restore(table, target)
        yield RestoredTable(table, version, target, before, lake.describe(table).rows)
        if progress is not None:
            progress(done, len(wanted))
