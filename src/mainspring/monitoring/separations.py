"""Weekly separations in the lake: the table `predictions__separations`, one row for each endpoint and week."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_text
from mainspring.data import duck
from mainspring.data.ports import LakeTables
from mainspring.monitoring.channels.separation import Separation

TABLE = "predictions__separations"
_TYPES: dict[str, pa.DataType] = {
    "endpoint": pa.string(),
    "week": pa.timestamp("us", tz="UTC"),
    "rows": pa.int64(),
    "before": pa.int64(),
    "auc": pa.float64(),
    "error": pa.float64(),
    "columns": pa.list_(pa.string()),
    "drops": pa.list_(pa.float64()),
}
_SCHEMA = pa.schema(list(_TYPES.items()))


class SeparationTable:
    """Separations by endpoint and week; the first one of a week stays."""

    def __init__(self, lake: LakeTables) -> None:
        self._lake = lake

    def add(self, endpoint: str, found: Separation) -> None:
        """Store the separation of a week; nothing is done if the week has one."""
        row = {
            "endpoint": endpoint,
            "week": found.start,
            "rows": found.rows,
            "before": found.before,
            "auc": found.auc,
            "error": found.error,
            "columns": list(found.columns),
            "drops": list(found.drops),
        }
        columns = [pa.array([row[name]], kind) for name, kind in _TYPES.items()]
        batches = pa.table(columns, schema=_SCHEMA).to_batches()
        self._lake.append(TABLE, batches, _SCHEMA, key=f"{endpoint}:{found.start}")

    def weeks(self, endpoint: str, since: int) -> list[Separation]:
        """Return the separations of the weeks that start at or after `since`, oldest first."""
        if self._lake.version(TABLE) is None:
            return []
        names = ", ".join(f'"{name}"' for name in _TYPES if name not in ("endpoint", "week"))
        with duck.session() as connection:
            duck.register(connection, "rows_", self._lake.scan(TABLE))
            rows: list[tuple[Any, ...]] = connection.execute(
                f'SELECT epoch_us("week"), {names} FROM rows_ WHERE endpoint = {quote_text(endpoint)} '
                f'AND epoch_us("week") >= {since} ORDER BY 1'
            ).fetchall()
        return [
            Separation(start, count, before, auc, error, tuple(columns or ()), tuple(drops or ()))
            for start, count, before, auc, error, columns, drops in rows
        ]
