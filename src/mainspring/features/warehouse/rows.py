"""The rows of a source and the questions to them, as tables of a statement.

Tables: `asks` (the keys, _t) are the observed entities and instants, each once; `rows` (the keys, _e, _r, _seq, _v, _g,
_x0, ..., _m0, ...) the facts, each with its event and recorded time, its order of arrival, and [_v, _g), the instants
at which it counts. All times are microseconds. No column of a user begins with `_`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mainspring.core.expr import Node
from mainspring.core.expr.dialects import Dialect, no_equal
from mainspring.core.expr.types import dtype_of
from mainspring.core.expr.warehouse_sql import to_warehouse_sql
from mainspring.core.schema import DType
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, Source
from mainspring.features.layout import Layout

_FLOATS = (DType.Float32, DType.Float64)


@dataclass
class Script:
    """Builder of the tables of a statement, in the order of the calls. `prefix` tells its reads apart."""

    dialect: Dialect
    prefix: str = ""
    tables: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, query: str) -> str:
        """Add a table and return its name."""
        name = f"{self.prefix}{name}"
        self.tables[name] = query
        return name


@dataclass(frozen=True)
class Keys:
    """The key columns of an entity, quoted."""

    names: tuple[str, ...]

    def listed(self, table: str = "") -> str:
        return ", ".join(f"{table}.{name}" if table else name for name in self.names)

    def equal(self, left: str, right: str) -> str:
        """Condition that two tables are equal in the keys; null equals nothing."""
        return " AND ".join(f"{left}.{name} = {right}.{name}" for name in self.names)

    def there(self, table: str) -> str:
        return " AND ".join(f"{table}.{name} IS NOT NULL" for name in self.names)


def keys_of(layout: Layout, dialect: Dialect) -> Keys:
    """Return the keys of a view's entity.

    Raises:
        Invalid: A key is a float, of which the dialects differ in when two are equal.
    """
    entity = layout.view.entity
    floats = [name for name, dtype in entity.keys.items() if dtype in _FLOATS]
    if floats:
        raise no_equal(dialect, f"the key {floats[0]} of entity {entity.name}, a float")
    return Keys(tuple(dialect.column(name) for name in entity.keys))


def asks_sql(keys: Keys, observations: str, now: str) -> str:
    """SELECT the observed entities and instants, each once."""
    return (
        f"SELECT DISTINCT {keys.listed('o')}, {now} AS _t FROM {observations} AS o "
        f"WHERE {keys.there('o')} AND {now} IS NOT NULL"
    )


def rows_sql(layout: Layout, keys: Keys, dialect: Dialect, origin: str, arrival: str | None, within: str) -> str:
    """SELECT the rows that can count, from a table of the lake, or from a table as the source brings it.

    Args:
        origin: The table, as `s`.
        within: Conditions of its rows, each after AND.
        arrival: Of a table as the source brings it: the column that orders its rows by arrival, distinct for each row.
    """
    source = layout.view.source
    event, recorded = (
        _micros(dialect, name) for name in (source.event_time, source.recorded_time or source.event_time)
    )
    values = [f"{row_sql(expr, layout, dialect)} AS _x{n}" for n, expr in enumerate(layout.last_exprs)]
    values += [f"{measure_sql(layout, n, dialect)} AS _m{n}" for n in range(len(layout.measures))]
    columns = ", ".join([keys.listed("s"), f"{event} AS _e", f"{recorded} AS _r", *values])
    if arrival is not None:
        seq = f"s.{dialect.column(arrival)}"
        visible = (
            f"CASE WHEN {event} >= {recorded} + {source.lag_us} THEN {event} ELSE {recorded} + {source.lag_us} END"
        )
        where = f"FROM {origin} WHERE {event} IS NOT NULL AND {recorded} IS NOT NULL{within}"
        columns = f"SELECT {columns}, {seq} AS _seq, {visible} AS _seen"
        if source.id:
            columns += _versions_sql(source, dialect, f"{recorded} DESC, {seq} DESC", visible)
        return f"SELECT f.*, f._seen + 1 AS _v{_UNTIL if source.id else ''} FROM ({columns} {where}) AS f WHERE " + (
            f"{keys.there('f')}{_COUNTS if source.id else ''}"
        )
    visible, over = _micros(dialect, VISIBLE_AT), _micros(dialect, SUPERSEDED_AT)
    columns = f"SELECT {columns}, s.{dialect.column(SEQUENCE)} AS _seq, {visible} + 1 AS _v"
    if not source.id:
        return f"{columns} FROM {origin} WHERE {keys.there('s')}{within}"
    alive = f"({over} IS NULL OR {over} > {visible})"
    return f"{columns}, {over} + 1 AS _g FROM {origin} WHERE {keys.there('s')}{within} AND {alive}"


_UNTIL = ", f._over + 1 AS _g"
_COUNTS = " AND NOT f._gone AND (f._over IS NULL OR f._over > f._seen)"


def _versions_sql(source: Source, dialect: Dialect, newest_first: str, visible: str) -> str:
    """Columns of a version: when a higher one becomes visible, and whether it retracts the fact.

    Its keys may be null: it still ends the version before it.
    """
    fact = ", ".join(f"s.{dialect.column(name)}" for name in source.id)
    gone = "FALSE" if source.retracted is None else f"COALESCE(s.{dialect.column(source.retracted)}, FALSE)"
    return (
        f", MIN({visible}) OVER (PARTITION BY {fact} ORDER BY {newest_first} "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS _over, {gone} AS _gone"
    )


def _micros(dialect: Dialect, column: str) -> str:
    return dialect.write("micros", f"s.{dialect.column(column)}")


def row_sql(expr: Node, layout: Layout, dialect: Dialect) -> str:
    """Return the value of an expression on one row `s`; an instant is microseconds, and -0.0 is 0.0."""
    columns = layout.view.source.columns

    def column(name: str, dtype: DType) -> str:
        raw = f"s.{dialect.column(name)}"
        return dialect.write("micros", raw) if dtype is DType.Timestamp else raw

    value = to_warehouse_sql(expr, columns, dialect, column)
    return f"({value} + {dialect.literal(0.0, DType.Float32)})" if _is_float(expr, layout) else value


def measure_sql(layout: Layout, n: int, dialect: Dialect) -> str:
    """Return a measure's value of one row `s`, null where its filter is not true; a Boolean is 1 or 0."""
    measure, dtype = layout.measures[n], layout.measured[n]
    value = "1" if measure.of is None else row_sql(measure.of, layout, dialect)
    if dtype is DType.Boolean and measure.of is not None:
        value = f"CASE WHEN {value} THEN 1 WHEN NOT {value} THEN 0 END"
    return value if measure.where is None else f"CASE WHEN {row_sql(measure.where, layout, dialect)} THEN {value} END"


def _is_float(expr: Node, layout: Layout) -> bool:
    return dtype_of(expr, layout.view.source.columns) in _FLOATS
