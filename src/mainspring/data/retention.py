"""Retention of what ingestion leaves behind: files that only versions without a name need go after some time.

Each batch that changes earlier rows writes files anew, and a compaction does; the old ones stay for older versions.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from mainspring.data.model import HEADS_PREFIX
from mainspring.data.ports import LakeTables, Snapshots

_COMMITS = 1_000_000


def retain(
    lake: LakeTables, snapshots: Snapshots, replaced_before: int, seen: MutableMapping[str, int] | None = None
) -> dict[str, int]:
    """Delete files of landed tables that no dataset commit needs; return, for each table, how many those are.

    Every version that a dataset commit or a tag names stays, and so does each table's newest. What `commits.vacuum`
    has deleted is no hindrance.

    Args:
        replaced_before: UTC epoch microseconds; what was replaced later stays, as somebody may read it.
        seen: Table -> the version at which nothing was left to delete; such tables are passed over until they change.
            It is brought up to date.
    """
    commits = snapshots.log(_COMMITS)
    commits += [snapshots.get(name) for name in snapshots.tags()]
    done = {}
    for table, newest in _landed(lake):
        if seen is not None and seen.get(table) == newest:
            continue
        named = {found.versions[table] for found in commits if table in found.versions}
        kept = lake.readable(table, sorted(named))
        done[table] = lake.vacuum(table, kept, replaced_before=replaced_before)
        if seen is not None and not lake.vacuum(table, kept, dry_run=True):
            seen[table] = newest
    return done


def _landed(lake: LakeTables) -> Iterator[tuple[str, int]]:
    for table in lake.tables():
        known = lake.describe(table)
        if table.startswith(HEADS_PREFIX) or known.landed:
            yield table, known.version
