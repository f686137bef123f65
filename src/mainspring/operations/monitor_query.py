"""SQL over what monitoring knows: `mainspring monitor query`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.data import duck
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.model import Window
from mainspring.project import Project

MOST_ROWS = 10_000
_INSTANT = pa.timestamp("us", tz="UTC")
_TABLES = {  # short name -> table of the lake
    "predictions": PREDICTIONS,
    "failures": FAILURES,
    "explanations": EXPLANATIONS,
    "sketches": "predictions__sketches",
    "hours": "predictions__hours",
    "quality": "predictions__quality",
    "crossed_quality": "predictions__crossed_quality",
    "separations": "predictions__separations",
    "skew": "predictions__skew",
}


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query, each with a value for each column; `cut` tells whether there were more."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: bool


def query(project: Project, sql: str, *, limit: int = MOST_ROWS) -> QueryResult:
    """Return the rows of one SELECT over monitoring's tables, in DuckDB's SQL.

    The tables are those of the lake, under their own names and short ones: `predictions`, `failures`, `explanations`,
    `sketches`, `hours`, `quality`, `crossed_quality`, `separations` and `skew`; and of the catalog `windows` and
    `incidents`. Personal values stay encrypted. The query reads no file and writes nothing.

    Args:
        limit: Largest number of rows.

    Raises:
        Invalid: It is no single SELECT, or DuckDB refuses it.
    """
    with duck.connect() as connection:
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise _refused(error) from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise Invalid("The query is no single SELECT statement.", fix='write "SELECT ... FROM hours".')
        scans = {
            name: project.lake.scan(table) for name, table in _TABLES.items() if project.lake.version(table) is not None
        }
        for name, scan in scans.items():
            for shown in {name, _TABLES[name]}:
                duck.register(connection, shown, scan)
        for name, documents in _documents(project).items():
            connection.register(name, documents)
        connection.execute("SET python_enable_replacements = false")
        duck.confine(connection, scans.values())
        connection.execute("SET lock_configuration = true")
        try:
            cursor = connection.execute(f"SELECT * FROM ({sql.strip().rstrip(';')}\n) LIMIT {limit + 1}")
            rows = cursor.fetchall()
        except duckdb.Error as error:
            raise _refused(error) from error
        columns = tuple(each[0] for each in cursor.description or ())
    return QueryResult(columns=columns, rows=rows[:limit], cut=len(rows) > limit)


def _refused(error: duckdb.Error) -> Invalid:
    return Invalid(
        f"The query cannot be run: {(str(error).splitlines() or ['unknown'])[0]}",
        fix=f"the tables are {', '.join([*_TABLES, 'windows', 'incidents'])}; DESCRIBE lists columns: "
        '"SELECT * FROM (DESCRIBE hours)".',
    )


def _documents(project: Project) -> dict[str, pa.Table]:
    windows = [each for endpoint in project.definitions.endpoints for each in project.monitors.windows(endpoint)]
    instants = ("opened_at", "closed_at", "closed_through", "updated_at", "silenced_until")
    return {
        "windows": _document_table(Window, windows, ("start", "end", "computed_at")),
        "incidents": _document_table(Incident, project.incidents.find(limit=MOST_ROWS), instants),
    }


def _document_table(
    kind: type[msgspec.Struct], documents: Sequence[msgspec.Struct], instants: Sequence[str]
) -> pa.Table:
    """Return a row for each document; values that are no scalars are JSON."""
    fields = [field.name for field in msgspec.structs.fields(kind)]
    rows: list[Mapping[str, Any]] = [msgspec.structs.asdict(each) for each in documents]
    columns = {name: _column([row[name] for row in rows], instant=name in instants) for name in fields}
    return pa.table(columns)


def _column(values: list[Any], *, instant: bool) -> pa.Array[Any]:
    if instant and all(value is None or isinstance(value, int) for value in values):
        return pa.array(values, _INSTANT)
    if {*map(type, values)} <= {str, type(None)}:
        return pa.array(values, pa.string())
    if {*map(type, values)} <= {int, type(None)}:
        return pa.array(values, pa.int64())
    if {*map(type, values)} <= {int, float, type(None)}:
        return pa.array(values, pa.float64())
    encode: Callable[[Any], bytes] = msgspec.json.encode
    return pa.array([None if value is None else encode(value).decode() for value in values], pa.string())
