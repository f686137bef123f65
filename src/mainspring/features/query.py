"""A read as text: the tables that it makes, the query of its result, and who runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The first and the last instant asked about, UTC epoch microseconds: what cannot matter to any is not read.
OLDEST, NEWEST = "$oldest", "$newest"


@dataclass(frozen=True, slots=True)
class Query:
    """SQL over `observed` and `source`.

    Attributes:
        tables: Name and query of each temporary table, in the order in which they are made. They may use the parameters
            `OLDEST` and `NEWEST`.
        result: SELECT `_i`, an observation's number, and the features by name: a row for each observation that has
            any, in any order.
    """

    tables: tuple[tuple[str, str], ...]
    result: str

    @property
    def statements(self) -> tuple[str, ...]:
        return (*(f"CREATE TEMP TABLE {name} AS {query}" for name, query in self.tables), self.result)


def make_tables(con: Any, query: Query, bounds: Mapping[str, int | None]) -> None:
    """Make the tables of a query."""
    for sql in query.statements[:-1]:
        con.execute(sql, {name: value for name, value in bounds.items() if f"${name}" in sql})


def drop_tables(con: Any, query: Query) -> None:
    for name, _ in query.tables:
        con.execute(f"DROP TABLE IF EXISTS {name}")
