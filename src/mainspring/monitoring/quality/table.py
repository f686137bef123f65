"""Quality sums in the lake: the table `predictions__quality`.

Rows are differences: when a label arrives or changes, rows with what is added and what is taken away are appended. So
the sums of an hour are the sums of its rows, in SQL as here, and nothing is ever rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.ports import LakeTables
from mainspring.stats.quality_sums import BINS, CELLS, TOTALS, Sums

TABLE = "predictions__quality"
_INSTANT = pa.timestamp("us", tz="UTC")
_KEYS = ("version", "digest", "hour", "segment", "output", "age_s", "task")
_TYPES: dict[str, pa.DataType] = {
    "endpoint": pa.string(),
    "window": _INSTANT,  # start of the monitor's window from which the row was computed
    "computed_at": _INSTANT,  # labels visible by this time are included
    "version": pa.string(),  # empty in a row that only notes that the window was looked at
    "digest": pa.string(),
    "hour": _INSTANT,  # of the predictions
    "segment": pa.string(),  # empty for all traffic
    "output": pa.string(),  # of several labels, the one measured
    "age_s": pa.int64(),  # labels known by this age of the prediction; 0 in rows that count all predictions
    "task": pa.string(),
    **{name: pa.float64() for name in TOTALS},
    "bins": pa.list_(pa.float64()),  # 64 bins of the score, each with `quality_sums.CELLS`; null without any
}
SCHEMA = pa.schema(list(_TYPES.items()))


class Key(NamedTuple):
    """Group of predictions with sums of their own; `hour` is its start, UTC epoch microseconds."""

    version: str
    digest: str
    hour: int
    segment: str
    output: str
    age_s: int
    task: str


class QualityTable:
    """Sums by `Key` in a lake's table."""

    def __init__(self, lake: LakeTables) -> None:
        self._lake = lake

    def add(self, endpoint: str, windows: Mapping[int, int], rows: Mapping[int, Mapping[Key, Sums]], key: str) -> None:
        """Append differences, and note that windows were looked at.

        Args:
            windows: Start of each window -> time by which visible labels are included, UTC epoch microseconds.
            rows: Start of a window -> its differences.
            key: Identifies the write: a second one with the same key changes nothing.
        """
        table = pa.concat_tables(
            _encoded(endpoint, start, computed_at, rows.get(start, {})) for start, computed_at in windows.items()
        )
        self._lake.append(TABLE, table.to_batches(), SCHEMA, key=key)

    def looked(self, endpoint: str, since: int) -> dict[int, int]:
        """Return the start of each window from `since` on -> the time of the last look at it."""
        where = f"epoch_us({quote_name('window')}) >= {since}"
        found = self._query(
            endpoint, f"SELECT epoch_us({quote_name('window')}), max(epoch_us(computed_at))", where, "GROUP BY 1"
        )
        return {} if found is None else dict(zip(*(column.to_pylist() for column in found.columns), strict=True))

    def sums(
        self, endpoint: str, since: int, until: int, *, segment: str | None = None, version: str | None = None
    ) -> dict[Key, Sums]:
        """Return the sums of the hours that start in `[since, until)`.

        Args:
            segment: Return only this one; empty for all traffic.
            version: Return only this one.
        """
        where = f"epoch_us(hour) >= {since} AND epoch_us(hour) < {until} AND version <> ''"
        for name, wanted in (("segment", segment), ("version", version)):
            where += "" if wanted is None else f" AND {name} = {quote_text(wanted)}"
        names = ", ".join(map(quote_name, _KEYS))
        totals = ", ".join(f"sum({quote_name(name)})" for name in TOTALS)
        table = self._query(endpoint, f"SELECT {names}, {totals}", where, f"GROUP BY {names}")
        if table is None:
            return {}
        cells = self._query(endpoint, f"SELECT {names}, bins", f"{where} AND bins IS NOT NULL", "")
        assert cells is not None
        keys = _keys(table)
        values = np.stack([np.asarray(column.to_numpy(), np.float64) for column in table.columns[len(_KEYS) :]], axis=1)
        found = {key: Sums(values[row], np.zeros((BINS, len(CELLS)))) for row, key in enumerate(keys)}
        flat = np.asarray(pc.list_flatten(cells["bins"]).to_numpy(), np.float64)
        for key, bins in zip(_keys(cells), flat.reshape(-1, BINS, len(CELLS)), strict=True):
            np.add(found[key].bins, bins, out=found[key].bins)
        return {key: sums for key, sums in found.items() if not sums.empty}

    def _query(self, endpoint: str, select: str, where: str, group: str) -> pa.Table | None:
        if self._lake.version(TABLE) is None:
            return None
        with duck.connect() as connection:
            duck.register(connection, "rows", self._lake.scan(TABLE))
            found: pa.Table = connection.sql(
                f"{select} FROM rows WHERE endpoint = {quote_text(endpoint)} AND {where} {group}"
            ).to_arrow_table()
        return found


def _keys(table: pa.Table) -> list[Key]:
    columns: list[list[Any]] = [
        (table[name].cast(pa.int64()) if name == "hour" else table[name]).to_pylist() for name in _KEYS
    ]
    return [Key(*row) for row in zip(*columns, strict=True)]


def _encoded(endpoint: str, window: int, computed_at: int, rows: Mapping[Key, Sums]) -> pa.Table:
    looked = Key("", "", window, "", "", 0, "")
    whole = {looked: Sums.nothing(), **rows}
    columns: dict[str, list[Any]] = {name: [getattr(key, name) for key in whole] for name in _KEYS}
    columns |= {"endpoint": [endpoint] * len(whole), "window": [window] * len(whole)}
    columns["computed_at"] = [computed_at] * len(whole)
    columns |= {name: [sums[name] for sums in whole.values()] for name in TOTALS}
    columns["bins"] = [sums.bins.ravel().tolist() if sums.bins.any() else None for sums in whole.values()]
    return pa.table([pa.array(columns[each.name], each.type) for each in SCHEMA], schema=SCHEMA)
