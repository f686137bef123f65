"""One statement that reads features at the observations' instants, in the SQL of a warehouse.

It is the plan of `features.offline` without an ASOF join and without tiles: for each source and entity the questions
and the rows (`rows`), last values (`lasts`), windows (`windows`); the observations are joined with them, and computed
features are expressions over the joined columns. Each observation is one row of the result, with its own columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mainspring.core.expr.dialects import Dialect
from mainspring.core.expr.tree import Node
from mainspring.core.expr.types import columns_of
from mainspring.core.expr.warehouse_sql import to_warehouse_sql
from mainspring.core.schema import DType, Schema
from mainspring.features.layout import feature_dtype, layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, views_of
from mainspring.features.offline.stored import Together, by_source
from mainspring.features.warehouse.lasts import lasts_sql
from mainspring.features.warehouse.rows import Script, asks_sql, keys_of, rows_sql
from mainspring.features.warehouse.windows import windows_sql


@dataclass(frozen=True)
class Tables:
    """Names of tables in a warehouse.

    Attributes:
        observations: A table or view with the keys, the request's fields and `at`, a timestamp with a time zone.
        sources: Source -> table; by default the source's own name.
        arrival: If the tables are as the sources bring them and not the lake's: the column that orders a table's rows
            by arrival, distinct for each row.
    """

    observations: str = "observations"
    at: str = "at"
    sources: Mapping[str, str] = field(default_factory=dict)
    arrival: str | None = None


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
    values, joins = _stored(script, _needed(groups, wanted), tables)
    found = _Computed(dialect, groups, fields or {}, values)
    chosen = ", ".join(f"{found.result(name)} AS {dialect.column(name)}" for name in wanted)
    with_ = ",\n".join(f"{name} AS (\n  {query}\n)" for name, query in script.tables.items())
    return f"WITH {with_}\nSELECT o.*, {chosen}\nFROM {dialect.table(tables.observations)} AS o\n" + "\n".join(joins)


def _needed(groups: Sequence[FeatureGroup], wanted: Sequence[str]) -> list[FeatureView]:
    """Return the views with only the stored features that `wanted` are computed from."""
    named = {group.name: group for group in (*groups, *views_of(groups))}
    left, seen = list(wanted), set(wanted)
    while left:
        group_name, _, feature = left.pop().partition(".")
        group = named[group_name]
        if isinstance(group, RequestFeatures):
            used = {name for name in columns_of(group.features[feature]) if "." in name}
        else:
            of = group.derived.get(feature)
            used = set() if of is None else {f"{group_name}.{name}" for name in columns_of(of)}
        left += used - seen
        seen |= used
    trimmed = (
        FeatureView(
            view.name,
            view.entity,
            view.source,
            {name: each for name, each in view.features.items() if f"{view.name}.{name}" in seen},
        )
        for view in views_of(groups)
    )
    return [view for view in trimmed if view.features]


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
    keys, at = keys_of(layout, dialect), dialect.column(tables.at)
    source = read.view.source.name
    asks = script.table("asks", asks_sql(keys, dialect, dialect.table(tables.observations), at))
    table = dialect.table(tables.sources.get(source, source))
    rows = script.table("rows", rows_sql(layout, keys, dialect, table, tables.arrival))
    made = {}
    if layout.lasts:
        made[lasts_sql(script, layout, keys, asks, rows)] = [last.name for last in layout.lasts]
    for window in sorted({feature.window for feature in layout.windows}):
        name = windows_sql(script, layout, window, keys, asks, rows)
        made[name] = [feature.name for feature in layout.windows if feature.window == window]
    for name, features in made.items():
        now = dialect.write("micros", f"o.{at}")
        joins.append(f"LEFT JOIN {name} ON {keys.equal(name, 'o')} AND {name}._t = {now}")
        for place, feature in enumerate(features):
            value = f"{name}._f{place}"
            default = None if read.view.features[feature].kind == "last" else layout.default(feature)
            if default is not None:
                value = f"COALESCE({value}, {dialect.literal(default, layout.dtype(feature))})"
            values[f"{read.prefix}{feature}"] = value


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
