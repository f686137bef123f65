"""A lake of which only versions of sources can be read: what is made from them stays in this process."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import TableScan


class BorrowedLake(MemoryLake):
    """Sources as a function gives them; tables of tiles in memory."""

    def __init__(self, source: Callable[[str], TableScan]) -> None:
        super().__init__()
        self._source = source

    def scan(self, table: str, version: int | None = None) -> TableScan:
        return super().scan(table, version) if table in self.tables() else self._source(table)
