"""Business metrics of windows, in the lake's table `predictions__metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_text
from mainspring.data import duck
from mainspring.data.ports import LakeTables
from mainspring.monitoring.joins import OUTPUTS, distinct, join_labels
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.quality.sql_metrics import COLUMNS, MOST_ROWS, BusinessFigure, SqlMetric, computed

TABLE = "predictions__metrics"
READ = ("id", "version", "digest", "at", "keys", "score", "features", OUTPUTS)
_INSTANT = pa.timestamp("us", tz="UTC")
_TYPES: dict[str, pa.DataType] = {
    "endpoint": pa.string(),
    "start": _INSTANT,
    "end": _INSTANT,
    "computed_at": _INSTANT,  # labels visible by this time are included; of several rows the newest counts
    "version": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "error": pa.string(),
}
_SCHEMA = pa.schema(list(_TYPES.items()))


class BusinessTable:
    """Business metrics by window and version."""

    def __init__(self, lake: LakeTables) -> None:
        self._lake = lake

    def add(self, window: Window, figures: Mapping[tuple[str, str], BusinessFigure]) -> None:
        """Store the metrics of a window, by (version, metric)."""
        rows = [
            {
                "endpoint": window.endpoint,
                "start": window.start,
                "end": window.end,
                "computed_at": window.computed_at,
                "version": version,
                "metric": metric,
                "value": figure.value,
                "error": figure.error,
            }
            for (version, metric), figure in figures.items()
        ]
        if rows:
            columns = [pa.array([row[name] for row in rows], kind) for name, kind in _TYPES.items()]
            key = f"{window.endpoint}:{window.start}:{window.end}:{window.computed_at}"
            self._lake.append(TABLE, pa.table(columns, schema=_SCHEMA).to_batches(), _SCHEMA, key=key)

    def newest(self, endpoint: str, since: int) -> dict[tuple[int, int, str], dict[str, BusinessFigure]]:
        """Return (start, end, version) -> the metrics of each window that starts at or after `since`."""
        if self._lake.version(TABLE) is None:
            return {}
        with duck.session() as connection:
            duck.register(connection, "rows", self._lake.scan(TABLE))
            rows: list[tuple[Any, ...]] = connection.execute(
                'SELECT epoch_us("start"), epoch_us("end"), version, metric, value, error FROM rows '
                f'WHERE endpoint = {quote_text(endpoint)} AND epoch_us("start") >= {since} ORDER BY computed_at'
            ).fetchall()
        found: dict[tuple[int, int, str], dict[str, BusinessFigure]] = {}
        for start, end, version, metric, value, error in rows:
            found.setdefault((start, end, version), {})[metric] = BusinessFigure(value, error)
        return found


def business_figures(
    metrics: Sequence[SqlMetric], batches: Iterable[pa.Table], labels: LabelRows | None, until: int
) -> dict[tuple[str, str], BusinessFigure]:
    """Return (version, metric) -> its value over the predictions of one window, with the labels visible by `until`.

    Args:
        batches: Predictions with the columns `READ`.
    """
    parts: list[pa.Table] = []
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        parts.append(batch.select(READ))
        if rows > MOST_ROWS:
            break
    if not parts:
        return {}
    whole = distinct(pa.concat_tables(parts))
    if labels is not None and whole.num_rows <= MOST_ROWS:
        joined = join_labels(whole, labels, until)
        place = pc.index_in(whole["id"], joined["id"].combine_chunks())
        whole = whole.append_column("label", joined["label"].take(place))
        whole = whole.append_column("lag_s", pc.divide(joined["lag_us"].cast(pa.float64()), 1e6).take(place))
    else:
        for name in ("label", "lag_s"):
            whole = whole.append_column(name, pa.nulls(whole.num_rows, pa.float64()))
    found = {}
    for version in map(str, whole["version"].unique().to_pylist()):
        mine = whole.filter(pc.equal(whole["version"], pa.scalar(version))).select(COLUMNS)
        for metric in metrics:
            found[version, metric.name] = computed(metric, mine)
    return found
