"""Rows in every table of a catalog, whatever its migration, with a value in each column; and what tables hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

Columns = Mapping[str, Mapping[str, sa.types.TypeEngine[Any]]]  # table -> column -> type
Rows = dict[str, Counter[tuple[Any, ...]]]


def columns_of(engine: sa.Engine) -> Columns:
    """Return the columns of each table but alembic's."""
    found = sa.inspect(engine).get_multi_columns()
    return {
        table: {each["name"]: each["type"] for each in columns}
        for (_, table), columns in sorted(found.items(), key=lambda item: item[0][1])
        if table != "alembic_version"
    }


def value_of(name: str, kind: sa.types.TypeEngine[Any], number: int) -> Any:
    """Return a value of a column that no other row of the table has, where its type allows that."""
    if isinstance(kind, sa.Boolean):
        return False
    if isinstance(kind, (sa.Integer, sa.Numeric, sa.Float)):
        return number
    if isinstance(kind, sa.LargeBinary):
        return f"{name} {number} é".encode()
    return f"{number:02} {name} 'é'"[: getattr(kind, "length", None) or 100]


def fill(engine: sa.Engine, number: int, names: Collection[str]) -> None:
    """Add a row to each of the tables, those first that others refer to."""
    reflected = sa.MetaData()
    reflected.reflect(bind=engine, only=lambda name, _: name in names)
    with engine.begin() as connection:
        for table in reflected.sorted_tables:
            if table.name not in names:
                continue  # another refers to it
            row = {each.name: value_of(each.name, each.type, number) for each in table.columns}
            for key in table.foreign_keys:
                row[key.parent.name] = connection.scalar(sa.select(sa.func.max(key.column)))
            connection.execute(table.insert().values(row))


def rows_of(engine: sa.Engine, columns: Mapping[str, Sequence[str]]) -> Rows:
    """Return how often each row is in each table.

    Args:
        columns: Table -> those of its columns that are read.
    """
    with engine.connect() as connection:
        return {
            table: Counter(
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in connection.execute(sa.select(*map(sa.column, names)).select_from(sa.table(table)))
            )
            for table, names in columns.items()
        }
