"""Plan of an offline read: its files, columns and SQL, and DuckDB's query plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.core.expr.sql import quote_name
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import Schema
from mainspring.data import duck
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, TableScan
from mainspring.features.model import FeatureGroup, FeatureView, views_of
from mainspring.features.offline.computed import computed_of
from mainspring.features.offline.placing import Kind
from mainspring.features.offline.query import bind, connection
from mainspring.features.offline.stored import Together, by_source, run

_SAMPLE = 10_000  # rows of a source used as observations for DuckDB's plans


@dataclass(frozen=True)
class Step:
    """One query of the offline read with its intermediate tables, or the expressions over its results.

    Attributes:
        view: The view, or the group of on-demand features; or views that are read together, separated by commas.
        what: "last values", "windows" or "computed".
        features: Names of the computed features; full names for views that are read together.
        source, version, rows, files: Data read from the lake; "", `None` and 0 for computed features.
        columns: The columns that are read.
        sql: The statements, in order, as they run. `source` is the version of the source; `observed` has the
            observations: `_i`, their number; `_t`, their instants in UTC epoch microseconds; the key columns. The
            variables `oldest` and `newest` are the first and the last of those instants.
        plan: DuckDB's plan of each statement, if requested.
    """

    view: str
    what: str
    features: tuple[str, ...]
    source: str
    version: int | None
    rows: int
    files: int
    columns: tuple[str, ...]
    sql: str
    plan: str = ""


def explain(
    groups: Sequence[FeatureGroup],
    scan: Callable[[str], TableScan],
    schema: Schema,
    *,
    analyze: bool = False,
    rows_worth_a_tile: float = 16,
) -> list[Step]:
    """Return the steps of `features.offline.read.point_in_time`, in order.

    Finer tiles of a window are made if the entities of the observations have many rows. Without observations that is
    unknown, so the plan is that of a few; with `analyze`, rows of the source are used as observations.

    Args:
        schema: The types of the observations' columns.
        analyze: Whether to ask DuckDB for its plans, which runs the statements on a sample.

    Raises:
        Invalid: A view's entity was declared after its source was ingested.
    """
    steps: list[Step] = []
    with connection("2GB") as con:
        for source, portions in by_source(views_of(groups)).items():
            scanned = scan(source)
            for portion in portions:
                steps += _stored(con, portion, scanned, rows_worth_a_tile, analyze=analyze)
    steps += [
        Step(
            computation.name,
            "computed",
            tuple(computation.expressions),
            "",
            None,
            0,
            0,
            tuple(computation.used),
            computation.sql,
        )
        for computation in computed_of(groups, schema)
    ]
    return steps


def _stored(con: Any, read: Together, scan: TableScan, rows_worth_a_tile: float, *, analyze: bool) -> Iterator[Step]:
    view = read.view
    duck.register(con, "source", scan)
    (rows,) = duck.one_row(con, "SELECT count(*) FROM source")
    _observe_rows(con, view, _SAMPLE if analyze else 0)
    bind(con, *duck.one_row(con, "SELECT min(_t), max(_t) FROM observed"))
    noted = _Noted(con, analyze=analyze)
    files = 0 if scan.files is None else len(scan.files)

    def collect(query: str, kinds: Mapping[str, Kind], _: str) -> Step:
        noted.execute(query)
        sql, plan = noted.taken()
        what = "last values" if view.features[next(iter(kinds))].kind == "last" else "windows"
        columns = _columns(view, kinds)
        return Step(view.name, what, tuple(kinds), view.source.name, scan.version, rows, files, columns, sql, plan)

    yield from run(noted, read, scan, rows_worth_a_tile, collect)
    con.execute("DROP TABLE observed")
    con.execute("DROP VIEW source")


class _Noted:
    """A connection that records its statements."""

    def __init__(self, con: Any, *, analyze: bool) -> None:
        self._con = con
        self._analyze = analyze
        self._statements: list[str] = []
        self._plans: list[str] = []

    def execute(self, sql: str) -> Any:
        if not sql.startswith("DROP"):
            self._statements.append(sql)
        if self._analyze and not sql.startswith(("DROP", "CREATE TEMP VIEW")):
            self._plans.append(self._con.execute(f"EXPLAIN {sql}").fetchall()[0][1])
        return self._con.execute(sql)

    def sql(self, query: str) -> Any:
        self._statements.append(f"-- swept, row by row in order:\n{query}")
        if self._analyze:
            self._plans.append(self._con.execute(f"EXPLAIN {query}").fetchall()[0][1])
        return self._con.sql(query)

    def register(self, name: str, table: Any) -> None:
        self._con.register(name, table)

    def unregister(self, name: str) -> None:
        self._con.unregister(name)

    def taken(self) -> tuple[str, str]:
        """Return the statements and the plans since the last call."""
        sql, plan = ";\n".join(self._statements), "\n".join(self._plans)
        self._statements, self._plans = [], []
        return sql, plan


def _observe_rows(con: Any, view: FeatureView, rows: int) -> None:
    """Create `observed` from some rows of the source, each at the instant when it became visible."""
    keys = ", ".join(quote_name(key) for key in view.entity.keys)
    con.execute(
        f"CREATE TEMP TABLE observed AS SELECT row_number() OVER () - 1 AS _i, epoch_us({VISIBLE_AT}) AS _t, {keys} "
        f"FROM source LIMIT {rows}"
    )


def _columns(view: FeatureView, features: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of the source that the given features of the view read."""
    used = [VISIBLE_AT, view.source.event_time, *([SUPERSEDED_AT] if view.source.id else [])]
    for feature in (view.features[name] for name in features):
        if feature.kind == "last":
            used += [RECORD_PREFIX + view.entity.name, SEQUENCE]
        if feature.kind in ("first", "newest"):
            used.append(SEQUENCE)
        for expression in (feature.of, feature.where):
            used += sorted(columns_of(expression)) if expression is not None else []
    return tuple(dict.fromkeys([*view.entity.keys, *used]))
