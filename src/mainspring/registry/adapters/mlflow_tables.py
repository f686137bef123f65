"""MLflow's tables of runs, read without MLflow, and the indexes that searching them needs.

MLflow indexes neither the start time of a run nor the value of a metric, so its own ordered search reads everything.
The added indexes are named `mainspring_*`; MLflow works with or without them, and they may be dropped at any time.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from mainspring.core.catalog import check_not_deleted, sqlalchemy_url
from mainspring.core.errors import MissingExtra
from mainspring.registry.run_matching import LONGEST_NUMBER, LONGEST_ORDERED, NUMBER

experiments = sa.table(
    "experiments", sa.column("experiment_id", sa.Integer), sa.column("name", sa.Text), sa.column("lifecycle_stage")
)
runs = sa.table(
    "runs",
    sa.column("run_uuid", sa.Text),
    sa.column("name", sa.Text),
    sa.column("status", sa.Text),
    sa.column("start_time", sa.BigInteger),
    sa.column("end_time", sa.BigInteger),
    sa.column("lifecycle_stage", sa.Text),
    sa.column("experiment_id", sa.Integer),
)


def _measured(name: str) -> sa.TableClause:
    return sa.table(
        name,
        sa.column("key", sa.Text),
        sa.column("value", sa.Double),
        sa.column("timestamp", sa.BigInteger),
        sa.column("step", sa.BigInteger),
        sa.column("is_nan", sa.Boolean),
        sa.column("run_uuid", sa.Text),
    )


def _told(name: str) -> sa.TableClause:
    return sa.table(name, sa.column("key", sa.Text), sa.column("value", sa.Text), sa.column("run_uuid", sa.Text))


latest, metrics = _measured("latest_metrics"), _measured("metrics")
params, tags = _told("params"), _told("tags")

# The number that a text spells, as in `registry.run_matching.number_of`. MLflow's own connections update the indexes on
# it when they write, so the expression uses only built-in functions.
_NUMBERS = {
    "sqlite": (
        f"CASE WHEN length({{0}}) <= {LONGEST_NUMBER} AND {{0}} NOT GLOB '*[^0-9.eE+-]*'"
        " AND {0} NOT GLOB '*[eE][0-9][0-9][0-9]*' AND {0} NOT GLOB '*[eE][+-][0-9][0-9][0-9]*'"
        " AND json_valid({0}) THEN CAST({0} AS REAL) END"
    ),
    "postgresql": (
        f"CASE WHEN length({{0}}) <= {LONGEST_NUMBER} AND {{0}} ~ '^{NUMBER.replace('{', '{{').replace('}', '}}')}$'"
        " THEN CAST({0} AS DOUBLE PRECISION) END"
    ),
}
_BEGINS = {
    "sqlite": f"substr({{0}}, 1, {LONGEST_ORDERED})",
    "postgresql": f'substr({{0}}, 1, {LONGEST_ORDERED}) COLLATE "C"',
}
_INDEXES = {
    "mainspring_runs_started": "runs (start_time, run_uuid)",
    "mainspring_runs_model_started": "runs (experiment_id, start_time, run_uuid)",
    "mainspring_latest_metrics_value": "latest_metrics (key, is_nan, value, run_uuid)",
    "mainspring_params_text": "params (key, ({begin}), run_uuid)",
    "mainspring_params_number": "params (key, ({number}), run_uuid)",
    "mainspring_tags_text": "tags (key, ({begin}), run_uuid)",
}
_log = logging.getLogger(__name__)


def open_tables(url: str) -> sa.Engine:
    """Return an engine on MLflow's database, with SQLite set to compare text case-sensitively. Creates nothing.

    Raises:
        MissingExtra: The driver is not installed.
    """
    parsed = sqlalchemy_url(url)
    try:
        engine = sa.create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        raise MissingExtra("MLflow's store on Postgres", "postgres") from error
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA busy_timeout=10000")
            connection.execute("PRAGMA case_sensitive_like=ON")
            connection.execute("PRAGMA mmap_size=268435456")

    return engine


def is_there(engine: sa.Engine) -> bool:
    """Return whether MLflow has created its tables. Does not create a missing SQLite file.

    Raises:
        Unavailable: The database existed and was deleted.
    """
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        check_not_deleted(path, f"The store of runs {path}")
        if not path.exists():
            return False
    return sa.inspect(engine).has_table("latest_metrics")


def add_indexes(engine: sa.Engine) -> bool:
    """Create the missing indexes, then update the statistics; return whether all exist.

    Where the database forbids it, searching works without them, more slowly.
    """
    with engine.connect() as connection:
        known = set(connection.scalars(sa.text(_KNOWN[engine.dialect.name])))
    filled = {"begin": _BEGINS[engine.dialect.name], "number": _NUMBERS[engine.dialect.name]}
    filled = {name: sql.format("value") for name, sql in filled.items()}
    missing = {name: on.format(**filled) for name, on in _INDEXES.items() if name not in known}
    said = [f"CREATE INDEX IF NOT EXISTS {name} ON {on}" for name, on in missing.items()]
    try:
        for statement in (*said, "ANALYZE") if missing else ():
            # One transaction each: training runs may be logging, and a lock on one table held while waiting for another
            # could block them for ever, or make them fail.
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        _log.warning("No indexes for the search of runs: %s", str(error.orig).strip())
        return False
    return True


_KNOWN = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = ANY (current_schemas(false))",
}


def number(engine: sa.Engine, table: Any) -> sa.ColumnElement[float]:
    """Return the number that a row's text spells, null if it spells none; written exactly as in the index."""
    column = f"{table.name}.value"
    return sa.literal_column(f"({_NUMBERS[engine.dialect.name].format(column)})", sa.Double)


def begin(engine: sa.Engine, table: Any) -> sa.ColumnElement[str]:
    """Return the indexed prefix of a row's text; written exactly as in the index."""
    column = f"{table.name}.value"
    return sa.literal_column(f"({_BEGINS[engine.dialect.name].format(column)})", sa.Text)


def plain(engine: sa.Engine, text: Any) -> Any:
    """Return a text column with comparison by code points."""
    return text if engine.dialect.name == "sqlite" else sa.collate(text, "C")


def unindexed(engine: sa.Engine, column: Any) -> Any:
    """Return a column that SQLite does not look up by index, where it would pick the wrong one."""
    return sa.literal_column(f"+{column}", column.type) if engine.dialect.name == "sqlite" else column
