"""What the data package needs of a backend: versioned tables, and a place for commits and tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mainspring.data.model import DatasetCommit, TableScan, TableVersion

if TYPE_CHECKING:
    import pyarrow as pa


class LakeTables(Protocol):
    """Versioned tables of rows. A write is one new version or nothing; a version never changes.

    A backend may add versions of its own that hold the same rows in fewer files. The fields' metadata is kept.
    """

    def append(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        """Add `rows` as one version and return it; `None`, and no version, if `key` was written before.

        It is durable by then, also where `key` was written before. The table is created with the first append. `rows`
        is consumed in bounded memory. Columns that the table lacks
        are added, null in earlier rows. Two appends with one key at once leave the rows there once.

        Raises:
            InvalidData: A column's type differs from the table's.
            StorageFull: No space; the table is as it was.
        """
        ...

    def rewrite(self, table: str, rows: pa.Table, changes: pa.Table, on: str, *, key: str) -> int | None:
        """As `append`, and in the same version set the columns of `changes` in the rows there whose `on` matches.

        A null in `changes` leaves the value; a change that matches no row does nothing. Column `on` is of integers.
        """
        ...

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        """As `append`, but `rows` and `schema` take the place of all that the newest version has."""
        ...

    def restore(self, table: str, version: int | None) -> int | None:
        """Make the rows and the schema of an earlier version the newest again, by a new version, and return that.

        No row is copied, and every version between stays. What counts as written from then on is what did in
        `version`: whatever was written after it can be written again with its key.

        Args:
            version: None for a table without rows in which no key was written; its schema stays.

        Returns:
            `None`, and no version, where the newest holds that already.

        Raises:
            NotFound: No such table, or that version was vacuumed or never was.
        """
        ...

    def has(self, table: str, key: str) -> bool:
        """Return whether a write with this key is in the newest version. Cheap."""
        ...

    def version(self, table: str) -> int | None:
        """Return the newest version, `None` where there is no such table."""
        ...

    def tables(self) -> list[str]:
        """Return the names of all tables, sorted."""
        ...

    def scan(self, table: str, version: int | None = None) -> TableScan:
        """Return how to read a version, the newest by default.

        Raises:
            NotFound: No such table, or that version was vacuumed or never was.
            Corrupt: The table's log or files are damaged.
        """
        ...

    def readable(self, table: str, versions: Iterable[int]) -> list[int]:
        """Return those of a table's versions that are there and were not vacuumed, in order, without reading rows."""
        ...

    def appended(self, table: str, since: int) -> TableScan | None:
        """Return how to read the rows that were appended after version `since`, and the newest version.

        Returns:
            `None` where that cannot be told: rows were changed, replaced or restored since, or files are gone.

        Raises:
            NotFound: No such table.
        """
        ...

    def describe(self, table: str, version: int | None = None) -> TableVersion:
        """Return what is known of a version, the newest by default, without its rows; also where it was vacuumed.

        Raises:
            NotFound: No such table, or there never was such a version.
            Corrupt: The table's log is damaged.
        """
        ...

    def expire(self, table: str, column: str, before: int) -> int:
        """Remove the rows whose timestamp `column` is before an instant, by a version of its own; return how many.

        Args:
            before: UTC epoch microseconds. Where no row is before it, there is no version.
        """
        ...

    def shorten(self, table: str, entries: int, *, replaced_before: int) -> int:
        """Forget old versions, of a table that nobody goes back in; return how many files of its log that saved.

        Args:
            entries: The newest so many versions stay. What was written stays written.
            replaced_before: UTC epoch microseconds: versions since then stay, for `vacuum`.
        """
        ...

    def recover(self, table: str) -> bool:
        """Take back the newest write of a table where a loss of power cut it short; return whether there was one.

        For writers who write again what was not done; others hear of it as `Corrupt`, with the way out.
        """
        ...

    def damage(self, table: str) -> list[str]:
        """Return what is wrong with the files of the newest version, one text a file; also where the log is gone.

        No row is read: files are compared with what the log says of them, and begin and end as they should.
        """
        ...

    def vacuum(
        self, table: str, keep: Sequence[int], *, dry_run: bool = False, replaced_before: int | None = None
    ) -> int:
        """Delete what no version in `keep` and not the newest needs; return how many files that is.

        Args:
            replaced_before: UTC epoch microseconds: what a version lost since then stays, where the backend knows when.
        """
        ...


class Snapshots(Protocol):
    """Dataset commits and the tags that name them."""

    def add(self, commit: DatasetCommit) -> None:
        """Store a commit; storing it again changes nothing."""
        ...

    def get(self, name: str) -> DatasetCommit:
        """Return the commit with this id or tag.

        Raises:
            NotFound: There is none.
        """
        ...

    def log(self, limit: int = 100) -> list[DatasetCommit]:
        """Return commits, newest first."""
        ...

    def tag(self, name: str, commit: str) -> None:
        """Let `name` name the commit; a name that is taken moves.

        Raises:
            Invalid: `name` is no id.
            NotFound: There is no such commit.
        """
        ...

    def untag(self, name: str) -> None:
        """Forget a tag; an unknown one is no error."""
        ...

    def tags(self) -> Mapping[str, str]:
        """Return tag -> commit id."""
        ...
