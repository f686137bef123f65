"""Quality sums in the lake: the table `predictions__quality`.

Rows are differences: when a label arrives or changes, rows with what is added and what is taken away are appended. So
the sums of an hour are the sums of its rows, in SQL as here. The rows of a day are folded into one for each group when
it is one, seven and 35 days old, which changes no sum.

The table `predictions__crossed_quality` has the same columns. Its rows are of a day, in the bins of the features that
matter and in pairs of these: sums of the labels that were known by their horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.time import DAY
from mainspring.data import duck
from mainspring.data.ports import LakeTables
from mainspring.stats.quality_sums import BINS, CELLS, NO_BINS, TOTALS, Sums

TABLE, CROSSED = "predictions__quality", "predictions__crossed_quality"
_INSTANT = pa.timestamp("us", tz="UTC")
_FOLDED_DAYS = (1, 7, 35)  # ages of a day at which its rows are folded
_Value = TypeVar("_Value")
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
    """Sums by `Key` in a lake's table.

    Args:
        name: `TABLE` or `CROSSED`.
    """

    def __init__(self, lake: LakeTables, name: str = TABLE) -> None:
        self._lake = lake
        self._name = name
        self._folded: frozenset[tuple[int, int]] = frozenset()
        self._derived: dict[tuple[str, str], tuple[object, Any]] = {}

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
        self._lake.append(self._name, table.to_batches(), SCHEMA, key=key)

    def looked(self, endpoint: str, since: int) -> dict[int, int]:
        """Return the start of each window from `since` on -> the time of the last look at it."""
        where = f"epoch_us({quote_name('window')}) >= {since}"
        select = f"SELECT epoch_us({quote_name('window')}), max(epoch_us(computed_at))"
        found = self._query(endpoint, where, (select, "GROUP BY 1"))
        return dict(zip(*(column.to_pylist() for column in found[0].columns), strict=True)) if found else {}

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
        of_rows = f"SELECT {names}, {totals}", f"GROUP BY {names}"
        of_bins = f"SELECT {names}, bins", "AND bins IS NOT NULL"
        found_rows = self._query(endpoint, where, of_rows, of_bins)
        if not found_rows:
            return {}
        table, cells = found_rows
        keys = _keys(table)
        values = np.stack([np.asarray(column.to_numpy(), np.float64) for column in table.columns[len(_KEYS) :]], axis=1)
        found = {key: Sums(values[row], NO_BINS) for row, key in enumerate(keys)}
        flat = np.asarray(pc.list_flatten(cells["bins"]).to_numpy(), np.float64)
        for key, bins in zip(_keys(cells), flat.reshape(-1, BINS, len(CELLS)), strict=True):
            found[key] = Sums(found[key].totals, found[key].bins + bins)
        return {key: sums for key, sums in found.items() if not sums.empty}

    def derived(self, name: str, endpoint: str, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        """Return what is computed from an endpoint's sums; it is kept until the table or the key changes."""
        state = (self._lake.version(self._name), key)
        kept = self._derived.get((name, endpoint))
        if kept is None or kept[0] != state:
            kept = self._derived[name, endpoint] = (state, compute())
        found: _Value = kept[1]
        return found

    def fold(self, now: int) -> None:
        """Fold the days that have become old enough, once each; a kill at any time loses nothing.

        Args:
            now: UTC epoch microseconds.
        """
        days = [(now // DAY - age, age) for age in _FOLDED_DAYS]
        for day, age in days:
            key = f"fold:{day}:{age}"
            if (
                (day, age) not in self._folded
                and self._lake.version(self._name) is not None
                and not self._lake.has(self._name, key)
            ):
                self._lake.fold(self._name, "hour", day * DAY, (day + 1) * DAY, folded, key=key)
        self._folded = frozenset(days)  # a day without anything to fold leaves no key in the table

    def _query(self, endpoint: str, where: str, *asked: tuple[str, str]) -> list[pa.Table]:
        """Return the answers from one version of the table, none if there is no table yet.

        Args:
            asked: What stands before FROM, and behind the conditions.
        """
        if self._lake.version(self._name) is None:
            return []
        which = f"FROM rows WHERE endpoint = {quote_text(endpoint)} AND {where}"
        with duck.session() as connection:
            duck.register(connection, "rows", self._lake.scan(self._name))
            return [connection.sql(f"{select} {which} {rest}").to_arrow_table() for select, rest in asked]


def folded(rows: pa.Table) -> pa.Table | None:
    """Return rows with the same sums, one for each group and window; `None` if there are no fewer."""
    names = ("endpoint", "window", *_KEYS)
    columns: list[list[Any]] = [
        (rows[name].cast(pa.int64()) if pa.types.is_timestamp(rows[name].type) else rows[name]).to_pylist()
        for name in names
    ]
    places: dict[tuple[Any, ...], int] = {}
    group = np.array([places.setdefault(key, len(places)) for key in zip(*columns, strict=True)], np.int64)
    if len(places) == rows.num_rows:
        return None
    totals = np.zeros((len(places), len(TOTALS)))
    np.add.at(totals, group, np.stack([np.asarray(rows[name].to_numpy(), np.float64) for name in TOTALS], axis=1))
    bins = np.zeros((len(places), BINS * len(CELLS)))
    there = np.asarray(rows["bins"].is_valid().to_numpy(), np.bool_)
    flat = np.asarray(pc.list_flatten(rows["bins"]).to_numpy(), np.float64)
    np.add.at(bins, group[there], flat.reshape(-1, bins.shape[1]))
    newest = np.zeros(len(places), np.int64)
    np.maximum.at(newest, group, np.asarray(rows["computed_at"].cast(pa.int64()).to_numpy(), np.int64))
    made: dict[str, list[Any]] = {name: [key[place] for key in places] for place, name in enumerate(names)}
    made |= {name: totals[:, place].tolist() for place, name in enumerate(TOTALS)}
    made |= {"computed_at": newest.tolist(), "bins": [row.tolist() if row.any() else None for row in bins]}
    return pa.table([pa.array(made[each.name], each.type) for each in SCHEMA], schema=SCHEMA)


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
