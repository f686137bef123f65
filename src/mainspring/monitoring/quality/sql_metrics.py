"""Business metrics: one number for each window and version, by SQL over predictions and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "version", "at", "score", "label", "lag_s", "keys", "features", "outputs")
MOST_ROWS = 2_000_000  # predictions of a window
_SECONDS = 30.0
_SETTINGS = (
    "SET enable_external_access = false",  # no file, no network, no other database
    "SET python_enable_replacements = false",  # no variable of this process
    "SET lock_configuration = true",
)


@dataclass(frozen=True)
class SqlMetric:
    """A business metric; made by `ms.sql_metric`."""

    name: str
    sql: str


def sql_metric(name: str, sql: str) -> SqlMetric:
    """Declare a business metric: one number for each window and each version.

    Args:
        sql: A DuckDB query over the table `predictions`, which returns one number. It has a row for each prediction of
            one version in one window: `id`, `version`, `at`, `score`, `label` (null while it is unknown), `lag_s` (from
            the prediction until its label was known), and the JSON objects `keys`, `features` and `outputs`, so that
            `(features ->> '$."Card.amount"')::DOUBLE` is a feature.

    Raises:
        Invalid: The name is not valid, or the query is no text.
    """
    expect(name, str, "The name of a metric in SQL", fix='write ms.sql_metric("refunds", "SELECT ...").')
    check_id(name, "metric")
    expect(sql, str, f"The query of the metric {name!r}", fix="write a query: SELECT ... FROM predictions.")
    if not sql.strip():
        raise Invalid(f"The query of the metric {name!r} is empty.", fix="write a query: SELECT ... FROM predictions.")
    return SqlMetric(name, sql)


class BusinessFigure(msgspec.Struct, frozen=True):
    """Value of a business metric; with an error there is none."""

    value: float | None
    error: str = ""


def computed(metric: SqlMetric, predictions: pa.Table) -> BusinessFigure:
    """Return the value of a metric over predictions with the columns `COLUMNS`; an error is part of the figure.

    The query runs alone in a private session: it reads no file, no network and no variable, has 500 MB and one thread,
    and half a minute.
    """
    import duckdb

    from mainspring.data import duck

    if predictions.num_rows > MOST_ROWS:
        return BusinessFigure(None, f"The window has more than {MOST_ROWS:,} predictions; shorten `monitor_window`.")
    with duck.connect("500MB", threads=1) as connection:
        connection.register("given", predictions)
        connection.execute("CREATE TABLE predictions AS SELECT * FROM given")
        connection.unregister("given")
        for setting in _SETTINGS:
            connection.execute(setting)
        timer = Timer(_SECONDS, connection.interrupt)
        timer.start()
        try:
            rows: list[tuple[Any, ...]] = connection.execute(metric.sql).fetchmany(2)
        except duckdb.InterruptException:
            return BusinessFigure(None, f"The query took longer than {_SECONDS:.0f} seconds.")
        except (duckdb.Error, ValueError) as error:
            return BusinessFigure(None, (str(error).splitlines() or [type(error).__name__])[0])
        finally:
            timer.cancel()
    return _figure(rows)


def _figure(rows: list[tuple[Any, ...]]) -> BusinessFigure:
    if len(rows) != 1 or len(rows[0]) != 1:
        shape = f"{len(rows)} rows" if len(rows) != 1 else f"{len(rows[0])} columns"
        return BusinessFigure(None, f"The query returned {shape}; it must return one number.")
    (value,) = rows[0]
    if value is None:
        return BusinessFigure(None)  # of nothing, such as a sum over no rows
    try:
        number = float(value)
    except (TypeError, ValueError):
        return BusinessFigure(None, f"The query returned {value!r}, which is no number.")
    return BusinessFigure(number) if math.isfinite(number) else BusinessFigure(None, f"The query returned {number}.")
