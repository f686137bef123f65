"""Statistics of a table of the lake: rows, files, bytes, newest event, from the footers of its Parquet files alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import NotFound
from mainspring.core.time import from_datetime
from mainspring.data.model import QUARANTINE_SUFFIX, REASON, DatasetCommit, Source, TableScan
from mainspring.data.ports import LakeTables

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Extent:
    """Size of one version of a table. `files` and `size` are `None` for a table in memory."""

    version: int
    rows: int
    files: int | None
    size: int | None  # compressed bytes of the columns


@dataclass(frozen=True, slots=True)
class CommitChange:
    """A dataset commit with another version of a table than its parent; `before` is `None` if the table was new."""

    commit: DatasetCommit
    before: int | None
    after: int


def extent(scan: TableScan) -> Extent:
    """Return the size of a version of a table.

    Raises:
        Corrupt: A file cannot be read.
    """
    if scan.rows is not None:
        return Extent(scan.version, scan.rows.num_rows, None, None)
    found = [_size(file) for file in scan.files or ()]
    return Extent(scan.version, sum(rows for rows, _ in found), len(found), sum(size for _, size in found))


def newest(scan: TableScan, column: str) -> int | None:
    """Return the largest value of a timestamp column, UTC epoch microseconds; `None` without rows."""
    if scan.rows is not None:
        return _largest(scan.rows, column)
    per_file = (_newest(file, column) for file in scan.files or ())
    return max((time for time in per_file if time is not None), default=None)


def quarantine_reasons(lake: LakeTables, source: Source) -> dict[str, int]:
    """Return reason -> number of rows in the source's quarantine, most frequent first.

    Details of a single row, which may contain a value, are not part of a reason.

    Raises:
        Corrupt: The quarantine cannot be read.
    """
    from mainspring.data import duck

    try:
        scan = lake.scan(source.name + QUARANTINE_SUFFIX)
    except NotFound:
        return {}
    # The first may be an error of the reader, with details of the row after a colon; the others are checks of the
    # source.
    ours = r"(fails .*|\w+ is (null|not an? \w+)|\w+ has no UTC offset)"
    with duck.connect(memory_limit="512MB") as con, duck.duck_errors(source.name):
        duck.register(con, "quarantine", scan)
        found = con.execute(
            f"SELECT why, count(*) FROM (SELECT unnest(list_distinct([split_part(reasons[1], ': ', 1)] || "
            f"list_filter(reasons[2:], lambda each: regexp_full_match(each, '{ours}')))) AS why "
            f"FROM (SELECT string_split({REASON}, '; ') AS reasons FROM quarantine)) GROUP BY why ORDER BY 2 DESC, 1"
        ).fetchall()
    return dict(found)


def changes_of(table: str, commits: Iterable[DatasetCommit]) -> list[CommitChange]:
    """Return those of the given commits that changed a table, in their order.

    A commit whose parent is not among them cannot be compared and is left out, unless it has no parent.
    """
    known = {commit.id: commit for commit in commits}
    changes = []
    for commit in known.values():
        if table not in commit.versions or (commit.parent is not None and commit.parent not in known):
            continue
        before = known[commit.parent].versions.get(table) if commit.parent is not None else None
        if before != commit.versions[table]:
            changes.append(CommitChange(commit, before, commit.versions[table]))
    return changes


@lru_cache(maxsize=20_000)
def _size(file: str) -> tuple[int, int]:
    """Return a file's rows and bytes. A file of the lake never changes."""
    metadata = _metadata(file)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(group.column(index).total_compressed_size for group in groups for index in range(group.num_columns))
    return metadata.num_rows, size


@lru_cache(maxsize=20_000)
def _newest(file: str, column: str) -> int | None:
    metadata = _metadata(file)
    row_groups = (_statistics(metadata.row_group(index), column) for index in range(metadata.num_row_groups))
    largest = [group.max for group in row_groups if group is not None and group.has_min_max and group.max is not None]
    return max(map(from_datetime, largest), default=None)


def _metadata(file: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mainspring.core.errors import Corrupt

    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise Corrupt(f"A file of the lake cannot be read: {what}", fix="run `mainspring doctor`.") from error


def _statistics(group: Any, column: str) -> Any:
    columns = (group.column(index) for index in range(group.num_columns))
    return next((each.statistics for each in columns if each.path_in_schema == column), None)


def _largest(rows: pa.Table, column: str) -> int | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not rows.num_rows or column not in rows.column_names:
        return None
    value: int | None = pc.max(rows[column].cast(pa.int64())).as_py()
    return value
