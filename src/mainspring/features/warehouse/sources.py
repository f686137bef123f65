"""Checks that a warehouse has the rows of views, in the columns and types of their sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, Source
from mainspring.data.warehouse.ports import Warehouse
from mainspring.data.warehouse.types import read_as
from mainspring.features.functions.model import DerivedSource
from mainspring.features.model import FeatureView
from mainspring.features.warehouse.statement import Tables

if TYPE_CHECKING:
    import pyarrow as pa


def check_sources(views: Iterable[FeatureView]) -> None:
    """Raise if no warehouse can have the rows of a view.

    Raises:
        Invalid: A function of Python computes them, here.
    """
    for view in views:
        if isinstance(view.source, DerivedSource):
            raise Invalid(
                f"{view.source.function.name} computes the rows of {view.name} here, so no warehouse has them.",
                fix="read it from the lake (--engine lake), or leave it out.",
            )


def check_tables(warehouse: Warehouse, views: Iterable[FeatureView], tables: Tables) -> None:
    """Raise if a source's table lacks a column that the views read, or has it in another type.

    A clock without a zone would be read as UTC, and a decimal would be rounded: so the types must be the same.

    Raises:
        NotFound: There is no such table.
        InvalidData: A column is missing or of another type.
    """
    wanted: dict[str, dict[str, DType]] = {}
    for view in views:
        arrival = tables.arrivals.get(view.source.name, tables.arrival)
        wanted.setdefault(view.source.name, {}).update(_columns(view, arrival))
    for source, columns in wanted.items():
        table = tables.sources.get(source, source)
        found = warehouse.columns(table)
        arrival = tables.arrivals.get(source, tables.arrival)
        if arrival is not None and arrival not in found:
            raise InvalidData(
                f"Table {table} has no column {arrival!r}, which is to order the rows of {source} by arrival.",
                fix=f"correct `arrivals` in the profile; it has {sorted(found)}.",
            )
        for name, dtype in columns.items():
            check_column(table, name, dtype, found, source)


def _columns(view: FeatureView, arrival: str | None) -> dict[str, DType]:
    """Return the columns that a view reads, with their types."""
    source = view.source
    names = [*view.entity.keys, source.event_time]
    for feature in view.features.values():
        for expression in (feature.of, feature.where):
            names += sorted(columns_of(expression)) if expression is not None else []
    if arrival is not None:
        names += [name for name in (source.recorded_time, *source.id, source.retracted) if name]
    types = {name: source.columns[name] for name in names if name in source.columns}
    return {**types, **view.entity.keys, **({} if arrival is not None else _of_the_lake(source))}


def _of_the_lake(source: Source) -> dict[str, DType]:
    superseded = {SUPERSEDED_AT: DType.Timestamp} if source.id else {}
    return {VISIBLE_AT: DType.Timestamp, SEQUENCE: DType.Int64, **superseded}


def check_column(table: str, name: str, dtype: DType, found: Mapping[str, pa.DataType], source: str = "") -> None:
    """Raise if a table lacks a column, or has it in another type.

    Args:
        found: The table's columns.
        source: The source whose rows it has.

    Raises:
        InvalidData: It does.
    """
    if name not in found and name in (VISIBLE_AT, SEQUENCE, SUPERSEDED_AT):
        raise InvalidData(
            f"Table {table} has no column {name!r}, which the lake adds.",
            fix=f"if its rows are as the source brings them, name the column that orders them by arrival: "
            f'arrivals = {{ {source} = "COLUMN" }} in the warehouse of the profile.',
        )
    if name not in found:
        raise InvalidData(
            f"Table {table} has no column {name!r}.",
            fix=f"add it, in this case of letters, to a view, and name that instead; it has {sorted(found)}.",
        )
    if found[name] != read_as(ARROW_TYPES[dtype]):
        zone = ": it has no time zone, so it is not an instant" if dtype is DType.Timestamp else ""
        raise InvalidData(
            f"Column {name!r} of table {table} is read as {found[name]}, not as {dtype!r}{zone}.",
            fix="cast it in a view there, and name the view instead.",
        )
