"""Ports of the data package: versioned tables, and a store of commits and tags."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from mainspring.data.model import DatasetCommit, Erased, KeyValue, TableListing, TableScan, TableVersion

if TYPE_CHECKING:
    import pyarrow as pa


NO_MARKS: Mapping[str, int] = MappingProxyType({})


class LakeTables(Protocol):
    """Versioned tables of rows. A write makes one new version or none; a version is immutable.

    A backend may add versions of its own that hold the same rows in fewer files. Field metadata is kept.
    """

    def append(
        self,
        table: str,
        rows: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        """Add `rows` as one version and return it; return `None`, without a version, if `key` was written before.

        The write is durable on return, also if `key` was written before. The first append creates the table. `rows` is
        consumed in bounded memory. Missing columns are added, null in earlier rows. Concurrent appends with one key
        store the rows once. Of keys with one name and numbers (`data.write_keys.numbered`) a smaller number counts as
        written once a larger one is.

        Args:
            marks: Name -> number to store with the rows, such as the offset after the last message of a partition; not
                negative, and of any size. Other names keep theirs.

        Raises:
            InvalidData: A column's type differs from the table's.
            StorageFull: No space; the table is unchanged.
        """
        ...

    def rewrite(
        self,
        table: str,
        rows: pa.Table,
        changes: pa.Table,
        on: str,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        """Append as `append` does, and in the same version set the columns of `changes` in existing rows with equal
        `on`.

        A null in `changes` keeps the value; a change without a matching row is ignored. Column `on` holds integers.
        """
        ...

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        """Write as `append` does, but replace all rows and the schema of the newest version."""
        ...

    def fold(
        self,
        table: str,
        column: str,
        since: int,
        until: int,
        change: Callable[[pa.Table], pa.Table | None],
        *,
        key: str,
    ) -> int | None:
        """Replace the rows of a time span by a function of them, as one version: no reader sees a row in both forms.

        Args:
            column: A timestamp; the rows with `since <= column < until` are replaced, UTC epoch microseconds.
            change: Returns the new rows, of the same columns and span; `None` to leave the table as it is.
            key: As of `append`.

        Returns:
            The version, `None` if none was made.

        Raises:
            NotFound: The table does not exist.
        """
        ...

    def restore(self, table: str, version: int | None) -> int | None:
        """Make an earlier version's rows and schema the newest, as a new version, and return it.

        No row is copied, and the versions in between stay. The written keys and the marks become those of `version`, so
        later writes can be repeated with their keys.

        Args:
            version: None for an empty table without written keys; the schema stays.

        Returns:
            `None`, without a new version, if the newest is the same already.

        Raises:
            NotFound: The table does not exist, or the version was vacuumed or never existed.
        """
        ...

    def has(self, table: str, key: str) -> bool:
        """Return whether a write with this key is in the newest version. Cheap."""
        ...

    def marks(self, table: str, names: Iterable[str]) -> dict[str, int]:
        """Return the newest version's marks of those names that have one; none if there is no such table. Cheap."""
        ...

    def version(self, table: str) -> int | None:
        """Return the newest version, `None` if there is no such table."""
        ...

    def tables(self) -> list[str]:
        """Return the names of all tables, sorted."""
        ...

    def scan(self, table: str, version: int | None = None) -> TableScan:
        """Return a scan of a version, by default the newest.

        Raises:
            NotFound: The table does not exist, or the version was vacuumed or never existed.
            Corrupt: The table's log or files are damaged.
        """
        ...

    def readable(self, table: str, versions: Iterable[int]) -> list[int]:
        """Return those of a table's versions that exist and were not vacuumed, in order, without reading rows."""
        ...

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None:
        """Return a scan of the rows appended after version `since`, up to version `until`, by default the newest.

        Returns:
            `None` if unknown: rows were changed, replaced or restored since, or files no longer exist.

        Raises:
            NotFound: The table does not exist.
        """
        ...

    def describe(self, table: str, version: int | None = None) -> TableVersion:
        """Return the description of a version, by default the newest, without rows; works for vacuumed versions too.

        Raises:
            NotFound: The table does not exist, or never had the version.
            Corrupt: The table's log is damaged.
        """
        ...

    def expire(self, table: str, column: str, before: int) -> int:
        """Delete the rows whose timestamp `column` is before a time, as a separate version; return their number.

        Args:
            before: UTC epoch microseconds. If no row is older, no version is made.
        """
        ...

    def erase(self, table: str, where: Mapping[str, Collection[KeyValue]], *, dry_run: bool = False) -> Erased:
        """Delete rows from every version: if any version had some, all that need other files than the newest can no
        longer be read.

        On return neither a file of the table nor its log has them; killed, it is finished by a repetition. Written keys
        and marks stay, and so do the descriptions of versions. A table that never had such a row is left as it is.

        Args:
            where: Column -> values; the rows in which each column equals one of its values, as text in columns of text
                and as UTC epoch microseconds in timestamps. A table without one of the columns has no such row.

        Raises:
            Invalid: `where` names no column.
            NotFound: The table does not exist.
        """
        ...

    def forget(self, table: str) -> None:
        """Remove every version that needs other files than the newest, and values of rows from the log.

        Raises:
            NotFound: The table does not exist.
        """
        ...

    def shorten(self, table: str, entries: int, *, replaced_before: int, keep: Collection[int] = ()) -> int:
        """Drop old versions from a table's log; return the number of log files removed.

        Args:
            entries: Number of newest versions to keep. Written keys are kept.
            replaced_before: UTC epoch microseconds; versions since then are kept, for `vacuum`.
            keep: Older versions to keep.
        """
        ...

    def recover(self, table: str) -> bool:
        """Undo a table's newest write if a power loss left it incomplete; return whether there was one.

        For writers that repeat unacknowledged writes; others get `Corrupt`, with a fix.
        """
        ...

    def damage(self, table: str) -> list[str]:
        """Return the damage to files of the newest version, one text per file; also reports a missing log.

        No row is read: sizes are compared with the log, and the ends of files are checked.
        """
        ...

    def vacuum(
        self, table: str, keep: Sequence[int], *, dry_run: bool = False, replaced_before: int | None = None
    ) -> int:
        """Delete files needed neither by a version in `keep` nor by the newest; return their number.

        Args:
            replaced_before: UTC epoch microseconds; files replaced since then are kept, if the backend knows the time.
        """
        ...


class TableFiles(Protocol):
    """Files of a lake's tables, to be backed up and restored.

    Attributes:
        pointer: Name of the file that names the newest checkpoint, the only one that changes.
    """

    pointer: str

    def listed(self, table: str) -> TableListing | None:
        """Return the files of a table, `None` if there is no such table.

        Each file that an entry of the log needs is listed, or was removed by a later version.
        """
        ...

    def lying(self, table: str) -> list[str]:
        """Return the names of files outside of the log, also of a table that has no log yet."""
        ...

    def is_log(self, name: str) -> bool:
        """Return whether a file is of the log, which is written after the others, sorted by name."""
        ...

    def parts(self, table: str, name: str) -> Iterator[bytes]:
        """Yield the content of a file.

        Raises:
            FileNotFoundError: It was removed.
        """
        ...

    def expect_room(self, table: str, size: int) -> None:
        """Raise if so many bytes certainly do not fit.

        Raises:
            StorageFull: They do not.
        """
        ...

    def write(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        """Write files, each whole or not at all. Those of the log get their names in the order given.

        Args:
            files: Names, and contents in parts, which are read in other threads.

        Raises:
            Invalid: One would lie outside of the table; none was written.
        """
        ...

    def remove(self, table: str, names: Iterable[str]) -> None:
        """Remove files outside of the log; a missing one is no error."""
        ...


class Snapshots(Protocol):
    """Dataset commits and their tags."""

    def add(self, commit: DatasetCommit) -> None:
        """Store a commit; storing it again has no effect."""
        ...

    def get(self, name: str) -> DatasetCommit:
        """Return the commit with this id or tag.

        Raises:
            NotFound: There is no such commit.
        """
        ...

    def log(self, limit: int = 100) -> list[DatasetCommit]:
        """Return commits, newest first."""
        ...

    def tag(self, name: str, commit: str) -> None:
        """Point the tag `name` at the commit; an existing tag is moved.

        Raises:
            Invalid: `name` is not a valid id.
            NotFound: There is no such commit.
        """
        ...

    def untag(self, name: str) -> None:
        """Remove a tag; an unknown one is not an error."""
        ...

    def tags(self) -> Mapping[str, str]:
        """Return tag -> commit id."""
        ...
