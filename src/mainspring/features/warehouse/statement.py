"""One statement that reads features at the observations' instants, in the SQL of a warehouse.

It is the plan of `features.offline` without an ASOF join and without tiles: for each source and entity the questions
and the rows (`rows`), last values (`lasts`), windows (`windows`); the observations are joined with them, and computed
features are expressions over the joined columns. Each observation is one row of the result, with its own columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mainspring.core.expr.dialects import Dialect, no_equal
from mainspring.core.expr.tree import Node
from mainspring.core.expr.warehouse_sql import to_warehouse_sql
from mainspring.core.schema import DType, Schema
from mainspring.core.time import FIRST_INSTANT
from mainspring.features.functions.model import RequestFunction
from mainspring.features.layout import Layout, feature_dtype, layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, hop, views_of
from mainspring.features.needed import needed_for, stored_part
from mainspring.features.offline.stored import Together, by_source
from mainspring.features.warehouse.lasts import lasts_sql
from mainspring.features.warehouse.rows import Script, asks_sql, keys_of, rows_sql
from mainspring.features.warehouse.windows import windows_sql


@dataclass(frozen=True)
class Tables:
    """Names of tables in a warehouse.

    Attributes:
        observations: A table or view with the keys, the request's fields and `at`, a timestamp with a time zone.
        counted: Whether `at` is a whole number of microseconds instead.
        sources: Source -> table; by default the source's own name.
        arrival: If the tables are as the sources bring them and not the lake's: the column that orders a table's rows
            by arrival, distinct for each row.
        arrivals: Source -> that column of its table, if it has another.
        as_of: Instant of the tables' versions to read, UTC epoch microseconds; by default as they are.
        observed: First and last instant of the observations, microseconds: rows that matter to none are not read, which
            spares partitions of a table that is partitioned by time.
    """

    observations: str = "observations"
    at: str = "at"
    sources: Mapping[str, str] = field(default_factory=dict)
    arrival: str | None = None
    counted: bool = False
    arrivals: Mapping[str, str] = field(default_factory=dict)
    as_of: int | None = None
    observed: tuple[int, int] | None = None

    def instant(self, dialect: Dialect) -> str:
        """Return an observation's instant, in microseconds, of the observations `o`."""
        at = f"o.{dialect.column(self.at)}"
        return at if self.counted else dialect.write("micros", at)

    def rows(self, source: str, dialect: Dialect) -> str:
        """Return a source's table as `s`, in the version that is read."""
        table = dialect.table(self.sources.get(source, source))
        return f"{table} AS s" if self.as_of is None else dialect.write("as_of", table, "s", str(self.as_of))


def statement(
    groups: Sequence[FeatureGroup],
    dialect: Dialect,
    tables: Tables,
    *,
    fields: Schema | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return a SELECT of all columns of the observations, and of the features.

    Args:
        fields: The types of the request's fields, for features on demand.
        columns: The features' full names; by default all.

    Raises:
        Invalid: The dialect has no equal of a feature or of an expression in it.
    """
    script = Script(dialect)
    wanted = list(columns or [name for group in groups for name in group.columns])
    values, joins = _stored(script, stored_part(views_of(groups), needed_for(groups, wanted)), tables)
    found = _Computed(dialect, groups, fields or {}, values)
    chosen = ", ".join(f"{found.result(name)} AS {dialect.column(name)}" for name in wanted)
    return _select(script, f"o.*, {chosen}", tables, joins)


def stored_statement(
    views: Sequence[FeatureView], dialect: Dialect, tables: Tables, number: str
) -> tuple[str, dict[str, str]]:
    """Return a SELECT of the observations' numbers and of the stored features, and each feature's column in it.

    An instant is a number of microseconds in the result. Observations without any match are rows too.

    Args:
        views: Views with the features to read; computed features are none of them.
        number: The column of the observations that numbers them.

    Raises:
        Invalid: The dialect has no equal of a feature or of an expression in it.
    """
    script = Script(dialect)
    values, joins = _stored(script, views, tables)
    columns = {name: f"f{place}" for place, name in enumerate(values)}
    chosen = "".join(f", {values[name]} AS {dialect.column(column)}" for name, column in columns.items())
    return _select(script, f"o.{dialect.column(number)}{chosen}", tables, joins), columns


def _select(script: Script, chosen: str, tables: Tables, joins: Sequence[str]) -> str:
    observations = script.dialect.table(tables.observations)
    with_ = ",\n".join(f"{name} AS (\n  {query}\n)" for name, query in script.tables.items())
    return f"WITH {with_}\nSELECT {chosen}\nFROM {observations} AS o\n" + "\n".join(joins)


def _stored(script: Script, views: Sequence[FeatureView], tables: Tables) -> tuple[dict[str, str], list[str]]:
    """Return the SQL of each stored feature by its full name, and the joins that bring them."""
    values: dict[str, str] = {}
    joins: list[str] = []
    portions = [portion for each in by_source(views).values() for portion in each]
    for number, portion in enumerate(portions):
        script.prefix = f"p{number}_"
        _portion(script, portion, tables, values, joins)
    return values, joins


def _portion(script: Script, read: Together, tables: Tables, values: dict[str, str], joins: list[str]) -> None:
    dialect, layout = script.dialect, layout_of(read.view)
    keys, now = keys_of(layout, dialect), tables.instant(dialect)
    source = read.view.source.name
    asks = script.table("asks", asks_sql(keys, dialect.table(tables.observations), now))
    arrival = tables.arrivals.get(source, tables.arrival)
    origin, within = tables.rows(source, dialect), _within(layout, dialect, tables.observed, arrival)
    rows = script.table("rows", rows_sql(layout, keys, dialect, origin, arrival, within))
    made = {}
    if layout.lasts:
        made[lasts_sql(script, layout, keys, asks, rows)] = [last.name for last in layout.lasts]
    for window in sorted({feature.window for feature in layout.windows}):
        name = windows_sql(script, layout, window, keys, asks, rows)
        made[name] = [feature.name for feature in layout.windows if feature.window == window]
    for name, features in made.items():
        joins.append(f"LEFT JOIN {name} ON {keys.equal(name, 'o')} AND {name}._t = {now}")
        for place, feature in enumerate(features):
            value = f"{name}._f{place}"
            default = None if read.view.features[feature].kind == "last" else layout.default(feature)
            if default is not None:
                value = f"COALESCE({value}, {dialect.literal(default, layout.dtype(feature))})"
            values[f"{read.prefix}{feature}"] = value


def _within(layout: Layout, dialect: Dialect, observed: tuple[int, int] | None, arrival: str | None) -> str:
    """Return the conditions that a row matters to any of the observed instants, each after AND.

    A row is never known before it happens. An older row is out of every window, unless it is a version that ends
    another one's, or a last value that never expires.
    """
    if observed is None:
        return ""
    event, (oldest, newest) = f"s.{dialect.column(layout.view.source.event_time)}", observed
    found = f" AND {event} <= {dialect.write('instant', str(newest))}"
    ages = [last.ttl for last in layout.lasts] + [each.window + hop(each.window) for each in layout.windows]
    if None in ages or (layout.view.source.id and arrival is not None):
        return found
    low = oldest - max(age for age in ages if age is not None)
    return found + (f" AND {event} >= {dialect.write('instant', str(low))}" if low > FIRST_INSTANT else "")


class _Computed:
    """Features by their full names, as expressions over the joined tables; instants are microseconds."""

    def __init__(
        self, dialect: Dialect, groups: Sequence[FeatureGroup], fields: Schema, values: Mapping[str, str]
    ) -> None:
        self._dialect = dialect
        self._groups = {group.name: group for group in (*groups, *views_of(groups))}
        self._fields = fields
        self._values = dict(values)

    def result(self, name: str) -> str:
        """Return a feature in its type."""
        group, _, feature = name.partition(".")
        value = self._value(name)
        is_instant = feature_dtype(self._groups[group], feature, self._fields) is DType.Timestamp
        return self._dialect.write("instant", value) if is_instant else value

    def _value(self, name: str) -> str:
        if name not in self._values:
            group_name, _, feature = name.partition(".")
            group = self._groups[group_name]
            if isinstance(group, RequestFunction):
                raise no_equal(self._dialect, f"{name}, a function of Python")
            if isinstance(group, RequestFeatures):
                value = self._sql(group.features[feature], request_schema(group, self._fields), "")
            else:
                value = self._sql(group.derived[feature], layout_of(group).stored, f"{group_name}.")
            self._values[name] = value
        return self._values[name]

    def _sql(self, expression: Node, schema: Schema, prefix: str) -> str:
        def column(name: str, dtype: DType) -> str:
            if prefix or "." in name:
                return self._value(f"{prefix}{name}")
            field = f"o.{self._dialect.column(name)}"
            return self._dialect.write("micros", field) if dtype is DType.Timestamp else field

        return to_warehouse_sql(expression, schema, self._dialect, column)
