"""The newest observations, as realistic requests."""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import NotFound
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.features.model import Observations


def recent(scan: TableScan, observations: Observations, count: int) -> dict[str, list[Any]]:
    """Return up to `count` of the observations' rows by column, the newest first; instants in UTC epoch microseconds.

    Raises:
        NotFound: There is none.
    """
    source = observations.source
    at = to_sql(observations.at, source.columns)
    con = duck.connect()
    try:
        with duck.duck_errors(source.name, scan):
            duck.register(con, "source", scan)
            kinds = {name: kind for name, kind, *_ in con.execute("DESCRIBE source").fetchall()}
            wanted = ", ".join(
                f"epoch_us({quote_name(name)})" if "TIMESTAMP" in kinds[name] else quote_name(name)
                for name in source.columns
            )
            rows = con.execute(
                f"SELECT {wanted} FROM source WHERE ({at}) IS NOT NULL ORDER BY ({at}) DESC LIMIT {count:d}"
            ).fetchall()
    finally:
        con.close()
    if not rows:
        raise NotFound(f"Source {source.name!r} has no observation to ask with.", fix="land data, or ask by features.")
    return dict(zip(source.columns, map(list, zip(*rows, strict=True)), strict=True))
