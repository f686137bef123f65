"""Profiles of a table's columns: exact counts from one scan, in bounded memory.

The histogram's bins and the candidates for the most frequent values are chosen from a sample (`data.row_sample`); bins
and frequencies are then counted over every row. Distinct counts and quantiles are DuckDB's approximations, HyperLogLog
and t-digest.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.model import Source, TableScan
from mainspring.data.row_sample import spread

if TYPE_CHECKING:
    import duckdb


QUANTILES = {"p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
BINS = 24
TOP = 10
_CANDIDATES = 30
_LARGEST = 1e150  # values are clipped to this in the moments, so that sums of squares stay finite
_LAST_INT = 2**63 - 1  # stands for "none of them" in DuckDB's histograms

Value = bool | int | float | str
Share = Callable[[float], None]

_EVERY_S = 0.1


class Histogram(msgspec.Struct, frozen=True):
    """Histogram: `counts[i]` is the number of values in (edges[i-1], edges[i]]; the outer bins are open-ended.

    The inner edges are equally spaced over the middle 99% of the values.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]  # one more than edges


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Profile of one column. Numbers of a timestamp column are UTC epoch microseconds.

    `low`, `high` and `top` exclude nulls and NaN; `mean`, `sd`, `quantiles` and `histogram` also exclude infinities.
    They are None or empty if there is no such value. The latter are also left out for non-numeric columns, and all of
    them for columns that identify a person.
    """

    column: str
    dtype: str  # Arrow's name
    nulls: int
    nans: int
    distinct: int  # approximately
    pii: bool = False
    low: Value | None = None
    high: Value | None = None
    mean: float | None = None
    sd: float | None = None
    quantiles: dict[str, float] = {}
    histogram: Histogram | None = None
    top: tuple[tuple[Value, int], ...] = ()  # the most frequent values with their counts, if above 1


class TableProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Profile of one table version."""

    version: int
    rows: int
    columns: tuple[ColumnProfile, ...]


def profile(
    scan: TableScan, source: Source | None = None, *, memory_limit: str = "2GB", progress: Share | None = None
) -> TableProfile:
    """Return the profile of the version read by `scan`.

    Args:
        source: The source whose columns are profiled, without values for those that identify a person; None for every
            column whose name does not begin with `_`.
        progress: Called with the completed share, from another thread.

    Raises:
        Corrupt: A file cannot be read.
        StorageFull: Memory and disk are too small.
    """
    schema = scan.schema or pa.schema([])
    pii = set() if source is None else set(source.pii)
    columns = [
        _Column(field.name, field.type, field.name in pii)
        for field in schema
        if (not field.name.startswith("_") if source is None else field.name in source.columns)
    ]
    sample = spread(scan, [each.name for each in columns])
    plans = [_Plan(each, sample) for each in columns]
    with duck.connect(memory_limit) as con, duck.duck_errors("the table"):
        duck.register(con, "scanned", scan)
        wanted = ["count(*)", *(item for plan in plans for item in plan.items)]
        inner = ", ".join(["1 AS _one", *(value for plan in plans for value in plan.values)])
        with _watching(con, progress):
            rows, *found = duck.one_row(con, f"SELECT {', '.join(wanted)} FROM (SELECT {inner} FROM scanned)")
    return TableProfile(version=scan.version, rows=rows, columns=tuple(_taken(plans, found, rows)))


def _taken(plans: Sequence[_Plan], found: list[Any], rows: int) -> Iterator[ColumnProfile]:
    for plan in plans:
        yield plan.read(found[: len(plan.items)], rows)
        found = found[len(plan.items) :]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kind: pa.DataType
    pii: bool

    @property
    def is_float(self) -> bool:
        return bool(pa.types.is_floating(self.kind))

    @property
    def is_number(self) -> bool:
        return bool(self.is_float or pa.types.is_integer(self.kind) or pa.types.is_timestamp(self.kind))


class _Plan:
    """SQL for one column: `values` are expressions per row, `items` are aggregates."""

    def __init__(self, column: _Column, sample: pa.Table) -> None:
        self.column = column
        name = quote_name(column.name)
        value = f"epoch_us({name})" if pa.types.is_timestamp(column.kind) else name
        self._value, finite = quote_name(f"v {column.name}"), quote_name(f"f {column.name}")
        self.values = [f"{value} AS {self._value}"]
        nans = f"count(*) FILTER (isnan({self._value}))" if column.is_float else "0"
        self.items = [f"count({self._value})", nans, f"approx_count_distinct({self._value})"]
        self._tops: list[Value] = []
        self._edges: list[float] = []
        if column.pii:
            return
        seen = _seen(sample, column)
        self._tops = _common(seen, fewest=len(seen) // 100 if column.is_float else 1)
        there = f" FILTER (NOT isnan({self._value}))" if column.is_float else ""
        self.items += [f"min({self._value}){there}", f"max({self._value}){there}", self._top_sql()]
        if column.is_number:
            number = f"CAST({value} AS DOUBLE)"
            self.values.append(f"CASE WHEN isfinite({number}) THEN {number} END AS {finite}")
            self._edges = _edges(seen, whole=not column.is_float)
            clipped = f"CASE WHEN abs({finite}) < {_LARGEST} THEN {finite} ELSE sign({finite}) * {_LARGEST} END"
            self.items += [
                f"avg({clipped})",
                f"stddev_pop({clipped})",
                f"approx_quantile({finite}, {list(QUANTILES.values())})",
                f"histogram({finite}, {_doubles(self._edges)})",
            ]

    def _top_sql(self) -> str:
        if not self._tops:
            return "NULL"
        if isinstance(self._tops[0], str):
            # Other values are counted as '': the prefix distinguishes them from an empty text.
            texts = ", ".join(quote_text(f"={value}") for value in self._tops)
            return f"histogram_exact('=' || {self._value}, [{texts}])"
        if isinstance(self._tops[0], float):
            return f"histogram_exact({self._value}, CAST({_doubles(self._tops)} AS {_sql_kind(self.column)}[]))"
        return f"histogram_exact({self._value}, CAST({self._tops} AS {_sql_kind(self.column)}[]))"

    def read(self, found: list[Any], rows: int) -> ColumnProfile:
        column = self.column
        count, nans, distinct, *more = found
        known: dict[str, Any] = {
            "column": column.name,
            "dtype": str(column.kind),
            "nulls": rows - count,
            "nans": nans,
            "distinct": min(distinct, count),
            "pii": column.pii,
        }
        if more:
            low, high, top, *numbers = more
            known |= {"low": low, "high": high, "top": self._read_top(top or {})}
            if numbers and numbers[0] is not None:
                mean, sd, quantiles, bins = numbers
                counts = [bins.pop(edge, 0) for edge in self._edges]
                known |= {
                    "mean": mean,
                    "sd": sd,
                    "quantiles": dict(zip(QUANTILES, quantiles, strict=True)),
                    "histogram": Histogram(tuple(self._edges), (*counts, sum(bins.values()))),
                }
        return ColumnProfile(**known)

    def _read_top(self, counted: dict[Any, int]) -> tuple[tuple[Value, int], ...]:
        text = bool(self._tops) and isinstance(self._tops[0], str)
        pairs = [(value, counted.get(f"={value}" if text else value, 0)) for value in self._tops]
        pairs = [pair for pair in pairs if pair[1] > 1]
        return tuple(sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))[:TOP])


def _sql_kind(column: _Column) -> str:
    if pa.types.is_floating(column.kind):
        return "FLOAT" if column.kind.bit_width <= 32 else "DOUBLE"
    if pa.types.is_boolean(column.kind):
        return "BOOLEAN"
    return "INTEGER" if pa.types.is_int32(column.kind) else "BIGINT"


def _seen(sample: pa.Table, column: _Column) -> list[Value]:
    """Return the column's values in the sample, timestamps as microseconds, without nulls, NaN and infinities."""
    if column.name not in sample.column_names:
        return []
    values = sample[column.name].drop_null()
    if pa.types.is_timestamp(column.kind):
        values = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    if column.is_float:
        numbers = values.to_numpy()
        found: list[Value] = numbers[np.isfinite(numbers)].tolist()
        return found
    return [value for value in values.to_pylist() if value is not None]


def _common(seen: list[Value], *, fewest: int) -> list[Value]:
    common = Counter(seen).most_common(_CANDIDATES)
    return [value for value, count in common if count > max(1, fewest) and value != _LAST_INT]


def _edges(seen: list[Value], *, whole: bool) -> list[float]:
    """Return the ascending edges of at most `BINS` bins; few whole numbers get a bin each."""
    if not seen:
        return []
    low, high = (float(each) for each in np.quantile(np.array(seen, np.float64), [0.005, 0.995], method="nearest"))
    if whole and high - low < BINS - 1:
        return [low + step for step in range(int(high - low) + 1)]
    shares = np.arange(BINS - 1) / (BINS - 2)
    return sorted({float(edge) for edge in low * (1 - shares) + high * shares})  # a difference could overflow


def _doubles(numbers: Sequence[Any]) -> str:
    return f"[{', '.join(f'CAST({quote_text(repr(float(number)))} AS DOUBLE)' for number in numbers)}]::DOUBLE[]"


@contextmanager
def _watching(con: duckdb.DuckDBPyConnection, progress: Share | None) -> Iterator[None]:
    """Call `progress` with the running query's completed share, from another thread, inside the block."""
    if progress is None:
        yield
        return
    con.execute("SET enable_progress_bar = true")
    con.execute("SET enable_progress_bar_print = false")
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_EVERY_S):
            progress(min(max(con.query_progress(), 0.0) / 100.0, 1.0))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
