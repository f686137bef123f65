"""A limit of the bytes that one statement may read, checked before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.core.settings import Url
from mainspring.data.warehouse.ports import Estimate, Ran, UnloadedFile, Warehouse

if TYPE_CHECKING:
    import pyarrow as pa


class TooMuchToRead(Invalid):
    """A statement would read more than `max_scan`."""

    def __init__(self, scanned: int, most: int) -> None:
        super().__init__(
            f"The statement would read {scanned:,} bytes in the warehouse, and max_scan is {most:,}.",
            fix="read fewer columns or a shorter time, partition the table by time, or raise max_scan.",
        )


class BoundedWarehouse:
    """A warehouse that refuses statements which would read more than a limit, where it can tell.

    Args:
        most: Bytes of one statement.
    """

    def __init__(self, warehouse: Warehouse, most: int) -> None:
        self._warehouse, self._most = warehouse, most
        self.dialect = warehouse.dialect

    def ping(self) -> str:
        return self._warehouse.ping()

    def columns(self, table: str) -> Mapping[str, pa.DataType]:
        return self._warehouse.columns(table)

    def read(self, statement: str) -> AbstractContextManager[pa.RecordBatchReader]:
        self._check(statement)
        return self._warehouse.read(statement)

    def loaded(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> AbstractContextManager[str]:
        return self._warehouse.loaded(rows, schema)

    def estimate(self, statement: str) -> Estimate | None:
        return self._warehouse.estimate(statement)

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        self._check(statement)
        return self._warehouse.unload(statement, to)

    def last(self) -> Ran | None:
        return self._warehouse.last()

    def close(self) -> None:
        self._warehouse.close()

    def _check(self, statement: str) -> None:
        estimate = self._warehouse.estimate(statement)
        if estimate is not None and estimate.scanned_bytes > self._most:
            raise TooMuchToRead(estimate.scanned_bytes, self._most)
