"""A read as SQL text: intermediate tables and the query of its result, and their execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mainspring.data import duck
from mainspring.data.model import VISIBLE_AT

# The first and the last observed instant, UTC epoch microseconds: rows that cannot matter to any are not read.
OLDEST, NEWEST = "getvariable('oldest')", "getvariable('newest')"

# The first instant at which a row counts, UTC epoch microseconds: a row counts strictly after it became visible, so
# that an observation never sees its own row. Instants are whole microseconds.
COUNTS_FROM = f"(epoch_us({VISIBLE_AT}) + 1)"


Statement = str | Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Query:
    """SQL over `observed` and `source`.

    Attributes:
        statements: Steps that create the tables of `result`: SQL, or functions of the connection.
        result: A SELECT.
        cleanup: Statements that drop those tables.
    """

    statements: tuple[Statement, ...]
    result: str
    cleanup: tuple[str, ...] = ()


class Script:
    """Builder of statements that create tables and views, in the order of the calls."""

    def __init__(self) -> None:
        self._statements: list[Statement] = []
        self._there: dict[str, str] = {}

    def table(self, name: str, query: str) -> None:
        self._make(name, query, "TABLE")

    def view(self, name: str, query: str) -> None:
        self._make(name, query, "VIEW")

    def step(self, name: str, makes: Callable[[Any], None]) -> None:
        """Add a step that creates table `name` by more than SQL."""
        self._statements.append(makes)
        self._there[name] = "TABLE"

    def insert(self, name: str, query: str) -> None:
        self._statements.append(f"INSERT INTO {name} {query}")

    def drop(self, *names: str) -> None:
        self._statements += [f"DROP {self._there.pop(name)} {name}" for name in names]

    def query(self, result: str) -> Query:
        """Return a query over the created tables; the remaining ones are dropped after it."""
        left = reversed(self._there.items())
        return Query(tuple(self._statements), result, tuple(f"DROP {kind} {name}" for name, kind in left))

    def _make(self, name: str, query: str, kind: str) -> None:
        self._statements.append(f"CREATE TEMP {kind} {name} AS {query}")
        self._there[name] = kind


@contextmanager
def connection(memory_limit: str, threads: int | None = None, temp: Path | None = None) -> Iterator[Any]:
    """Open a session for reads whose results may be in any order."""
    con = duck.connect(memory_limit, temp, threads=threads)
    try:
        con.execute("SET preserve_insertion_order = false")  # it costs memory
        yield con
    finally:
        con.close()


@contextmanager
def made(con: Any, query: Query) -> Iterator[str]:
    """Context with the SQL of a query's result, whose tables exist inside the block."""
    for statement in query.statements:
        if isinstance(statement, str):
            execute(con, statement)
        else:
            statement(con)
    yield query.result
    for statement in query.cleanup:
        con.execute(statement)


def execute(con: Any, statement: str) -> None:
    """Run an idempotent statement; retry it with one thread if memory is too small for several."""
    try:
        con.execute(statement)
    except duckdb.OutOfMemoryException:
        con.execute("SET threads = 1")
        con.execute(statement)


def bind(con: Any, oldest: int | None, newest: int | None) -> None:
    """Set the variables `OLDEST` and `NEWEST` of queries, UTC epoch microseconds."""
    for name, instant in (("oldest", oldest), ("newest", newest)):
        con.execute(f"SET VARIABLE {name} = {'NULL' if instant is None else instant}::BIGINT")
