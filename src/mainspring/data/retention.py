"""Retention of data files and log entries: what only unnamed versions need is deleted after some time.

Each batch that changes earlier rows rewrites files, and so does a compaction; the old files stay for older versions. A
stream makes up to 350,000 versions a day: without an end, so would the entries of its table's log.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from mainspring.data.model import HEADS_PREFIX
from mainspring.data.ports import LakeTables, Snapshots

_COMMITS = 1_000_000


def retain(
    lake: LakeTables,
    snapshots: Snapshots,
    replaced_before: int,
    seen: MutableMapping[str, int] | None = None,
    *,
    entries: int = 1_000,
) -> dict[str, int]:
    """Delete files and log entries of ingested tables that no dataset commit needs; return table -> number of files.

    Versions named by a dataset commit or a tag, and each table's newest, are kept. Versions already vacuumed are
    skipped.

    Args:
        replaced_before: UTC epoch microseconds; files replaced later are kept, as a reader may still use them.
        seen: Table -> version at which nothing was left to delete; such tables are skipped until they change. Updated
            in place.
        entries: Newest versions that stay in a table's log in any case.
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
        lake.shorten(table, entries, replaced_before=replaced_before, keep=named)
        if seen is not None and not lake.vacuum(table, kept, dry_run=True):
            seen[table] = newest
    return done


def _landed(lake: LakeTables) -> Iterator[tuple[str, int]]:
    for table in lake.tables():
        known = lake.describe(table)
        if table.startswith(HEADS_PREFIX) or known.landed:
            yield table, known.version
