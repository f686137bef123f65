"""Port of warehouses: Snowflake, BigQuery, a file of DuckDB.

A statement is SQL of the warehouse's dialect; a table is named as in `core.expr.dialects.Dialect.table`: exactly, parts
separated by dots. Results have the types of `data.warehouse.types`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mainspring.core.settings import Url

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cost of a statement that did not run: the bytes that it would read."""

    scanned_bytes: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A statement that ran: the warehouse's own id of it, and the bytes that it read; `None` where it does not tell."""

    id: str
    scanned_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UnloadedFile:
    """A Parquet file that a warehouse wrote; `at` is its whole address."""

    at: str
    rows: int
    size_bytes: int


class Warehouse(Protocol):
    """Tables of a warehouse, read by statements. The zone of its sessions is UTC. One caller at a time.

    All methods raise:
        Denied: The warehouse does not know the credentials, or the role may not do this.
        NotFound: A table, or a part of the address, does not exist.
        Invalid: The warehouse rejects the statement.
        Unavailable: It does not answer, or has no capacity for the statement now.

    Attributes:
        dialect: Name of its dialect in `core.expr.dialects`.
    """

    dialect: str

    def ping(self) -> str:
        """Run a statement that reads nothing, and return the name and version of the warehouse."""
        ...

    def columns(self, table: str) -> Mapping[str, pa.DataType]:
        """Return the columns of a table in their order, with the types as which `read` returns them.

        A column of a type that is not read is left out.

        Raises:
            NotFound: There is no such table; the fix has the names that are most like it.
        """
        ...

    def read(self, statement: str) -> AbstractContextManager[pa.RecordBatchReader]:
        """Run a SELECT. Its rows are streamed in bounded memory; the end of the context cancels what still runs.

        Raises:
            InvalidData: A value does not fit the type of its column, such as a whole number of more than 64 bits.
        """
        ...

    def loaded(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> AbstractContextManager[str]:
        """Context with a new table of these rows, and its name, which nobody else is told. It is dropped at the end.

        Where the process is killed, the warehouse drops it: at the end of the session, or within a day.

        Args:
            schema: Of the column types of `data.arrow.ARROW_TYPES`, each of which `read` returns as it was.
        """
        ...

    def estimate(self, statement: str) -> Estimate | None:
        """Return what a statement would read, without running it; `None` where the warehouse does not tell."""
        ...

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        """Let the warehouse write the rows of a SELECT to new Parquet files below `to`; their names are of this call
        alone. No file has no rows.

        Raises:
            Invalid: It does not write to such an address.
        """
        ...

    def last(self) -> Ran | None:
        """Return the statement that `read` or `unload` ran last; `None` where statements have no ids, or none ran."""
        ...

    def close(self) -> None:
        """End its sessions. A further call opens another."""
        ...
