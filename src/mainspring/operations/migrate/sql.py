"""Copy of the rows of one database to another with the same tables: the catalog, and MLflow's store.

All rows are copied in one transaction of the target, so after a kill it has all or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from mainspring.core.catalog import catalog_errors, sqlalchemy_url
from mainspring.core.errors import Conflict, Corrupt, InvalidData
from mainspring.core.settings import Url
from mainspring.operations.migrate.content import Content, Step

Row = dict[str, Any]

_NOT_OURS = ("alembic_version",)
_AT_ONCE = 1_000
_DIGEST_BITS = 128


def move_tables(
    source: sa.Engine,
    target: sa.Engine,
    name: str,
    *,
    decisive: Sequence[str],
    step: Step,
    as_there: Callable[[Row], Row] = lambda row: row,
) -> list[Content]:
    """Copy every table's rows unless they exist, and return the target's content, read again.

    Args:
        source: Database with the same tables as the target, of the same version.
        target: Database whose `decisive` tables are empty, or whose tables all equal the source's.
        name: Name of the database for messages: "the catalog".
        decisive: Tables whose rows make a target count as in use; other tables may have initial rows. Empty means all
            tables.
        step: Called with the number of copied rows.
        as_there: Converts a row of the source to the target's form.

    Raises:
        Conflict: The target has other rows.
        InvalidData: The target rejects a row.
        Corrupt: The data read again differs from the data written.
    """
    with catalog_errors(str(source.url.database)), source.connect() as reading:
        tables = _tables(target, source)
        actual = _contents(target, tables)
        if taken := _taken(actual, decisive):
            if actual == [_content(reading, table, as_there) for table in tables]:
                return actual
            raise Conflict(
                f"{name[0].upper()}{name[1:]} of the target profile already has different rows, in {taken}.",
                fix="name an empty database in that profile, or empty this one.",
            )
        expected = list[Content]()
        total = sum(reading.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables)
        with target.begin() as connection, _refusals(name):
            written = 0
            for table in reversed(tables):
                connection.execute(table.delete())
            for table in tables:
                summed = _Sum(table)
                for rows in _pieces(reading, table, as_there):
                    connection.execute(table.insert(), rows)
                    summed.add(rows)
                    written += len(rows)
                    step(written, total, table.name)
                _count_on(connection, table)
                expected.append(summed.content())
    with catalog_errors(str(target.url.database)):
        actual = _contents(target, tables)
    for left, right in zip(expected, actual, strict=True):
        if left != right:
            raise Corrupt(f"In {name}, the table {left.name} was written as {left} but is read as {right}.")
    return actual


def others(source: sa.Engine, target: sa.Engine, *, decisive: Sequence[str]) -> list[str]:
    """Return the tables for which `move_tables` would refuse the target."""
    with catalog_errors(str(source.url.database)), source.connect() as reading:
        expected, actual = _compared(reading, target, _tables(target, source), lambda row: row)
    return [] if expected == actual else _taken(actual, decisive)


def equal_rows(
    source: sa.Engine, target: sa.Engine, as_there: Callable[[Row], Row] = lambda row: row
) -> tuple[int, int]:
    """Return the number of rows in tables that are equal, and of all rows of the source."""
    with catalog_errors(str(source.url.database)), source.connect() as reading:
        expected, actual = _compared(reading, target, _tables(target, source), as_there)
    equal = sum(left.rows for left, right in zip(expected, actual, strict=True) if left == right)
    return equal, sum(each.rows for each in expected)


def _compared(
    reading: sa.Connection, target: sa.Engine, tables: Sequence[sa.Table], as_there: Callable[[Row], Row]
) -> tuple[list[Content], list[Content]]:
    return [_content(reading, table, as_there) for table in tables], _contents(target, tables)


def _contents(database: sa.Engine, tables: Sequence[sa.Table]) -> list[Content]:
    with database.connect() as connection:
        return [_content(connection, table) for table in tables]


def _taken(actual: Sequence[Content], decisive: Sequence[str]) -> list[str]:
    return [content.name for content in actual if content.rows and (not decisive or content.name in decisive)]


@contextmanager
def opened(url: Url) -> Iterator[sa.Engine]:
    """Context with an engine of a database, whose existing tables are used."""
    engine = sa.create_engine(sqlalchemy_url(url.text), poolclass=sa.pool.NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def _tables(target: sa.Engine, source: sa.Engine) -> list[sa.Table]:
    """Return the tables of both in order of their references, with types that both databases have."""
    names = set(sa.inspect(source).get_table_names()) - set(_NOT_OURS)
    reflected = sa.MetaData()

    @event.listens_for(reflected, "column_reflect")
    def generalise(_inspector: Any, _table: str, column: Any) -> None:
        column["type"] = column["type"].as_generic(allow_nulltype=True)

    reflected.reflect(bind=target, only=lambda name, _: name in names)
    missing = sorted(names - set(reflected.tables))
    if missing:
        raise Conflict(
            f"The target database lacks the tables {missing}.",
            fix="use the same versions of mainspring and MLflow for both.",
        )
    return reflected.sorted_tables


def _pieces(
    connection: sa.Connection, table: sa.Table, changed: Callable[[Row], Row] = lambda row: row
) -> Iterator[list[Row]]:
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(sa.select(table))
    for part in rows.mappings().partitions(_AT_ONCE):
        yield [changed(dict(row)) for row in part]


def _content(connection: sa.Connection, table: sa.Table, changed: Callable[[Row], Row] = lambda row: row) -> Content:
    summed = _Sum(table)
    for rows in _pieces(connection, table, changed):
        summed.add(rows)
    return summed.content()


class _Sum:
    """Content of a table, as its rows are read or written."""

    def __init__(self, table: sa.Table) -> None:
        self._table = table.name
        self._names = sorted(column.name for column in table.columns)
        self._rows = self._digest = 0

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += len(rows)
        for row in rows:
            text = "\x1f".join([_canonical(row[name]) for name in self._names])
            digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
            self._digest += int.from_bytes(digest[: _DIGEST_BITS // 8], "big")

    def content(self) -> Content:
        return Content(self._table, self._rows, f"{self._digest % 2**_DIGEST_BITS:032x}")


def _canonical(value: Any) -> str:
    """Return a value as text that is equal for both databases."""
    if isinstance(value, str):
        return value
    if value is None:
        return "\x1e"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return repr(value) if isinstance(value, float) else str(value)


def _count_on(connection: sa.Connection, table: sa.Table) -> None:
    """Advance the database's sequences beyond the copied ids."""
    if connection.dialect.name != "postgresql":
        return
    quoted = connection.dialect.identifier_preparer.format_table(table)
    for column in table.primary_key.columns:
        sequence = connection.scalar(
            sa.text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": quoted, "column": column.name}
        )
        if sequence is None:
            continue
        largest = connection.scalar(sa.select(sa.func.max(column)))
        if largest is not None:
            connection.execute(sa.text("SELECT setval(:name, :last)"), {"name": sequence, "last": int(largest)})


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.DataError, sa.exc.IntegrityError) as error:
        said = (str(error.orig).strip().splitlines() or ["refused"])[0]
        raise InvalidData(f"In {name}, the target database rejects a row: {said}") from error
