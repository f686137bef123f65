"""Counts of a table's columns over the bins of a sample, made by one SQL query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.data.row_sample import spread
from mainspring.stats.reference import CATEGORICAL, ColumnReference, Reference, profile_column
from mainspring.stats.sketches import Sketch

if TYPE_CHECKING:
    import duckdb

_LARGEST = 1e150  # as in stats: larger values are clipped in the moments


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one column. `n` is the number of values in bins: neither null nor NaN.

    `mean` and `m2` (the sum of squared differences from the mean) are over these values, 0 for categories. Infinities
    count as NaN. `bins` are the reference's: 64, or one per category and a last one for all others.
    """

    n: int
    nulls: int
    nans: int
    mean: float
    m2: float
    bins: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.n + self.nulls + self.nans

    @property
    def null_share(self) -> float:
        """Share of rows that are null or NaN; 0 without rows."""
        return (self.nulls + self.nans) / self.rows if self.rows else 0.0

    @property
    def sd(self) -> float:
        """Population standard deviation; 0 without values."""
        return math.sqrt(self.m2 / self.n) if self.n else 0.0

    def merge(self, other: Counts) -> Counts:
        """Return the combined counts (Chan, Golub and LeVeque, 1979); the order of merging does not matter."""
        n = self.n + other.n
        difference = other.mean - self.mean
        return Counts(
            n=n,
            nulls=self.nulls + other.nulls,
            nans=self.nans + other.nans,
            mean=(self.mean * self.n + other.mean * other.n) / n if n else 0.0,
            m2=self.m2 + other.m2 + (difference * difference * self.n * other.n / n if n else 0.0),
            bins=tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
        )


def reference_of(bins: Mapping[str, ColumnReference], counts: Mapping[str, Counts]) -> Reference:
    """Return the reference whose columns are filled with `counts` of the bins; moments are of unclipped values."""
    columns = {}
    for name, one in bins.items():
        mine = counts[name]
        columns[name] = msgspec.structs.replace(
            one,
            count=mine.rows,
            nulls=mine.nulls,
            nans=mine.nans,
            mean=mine.mean,
            sd=mine.sd,
            bins=mine.bins,
            low=None,
            high=None,
            center=None,
            scale=None,
            kurtosis=None,
            unseen=None,
        )
    return Reference(columns)


def sketch_of(reference: Reference, counts: Mapping[str, Counts]) -> Sketch:
    """Return counts of the reference's columns as a sketch, without what the counts lack."""
    sketch = Sketch.empty([*counts])
    for place, (name, mine) in enumerate(counts.items()):
        sketch.counts[place, :3] = mine.rows, mine.nulls, mine.nans
        sketch.bins[place, : len(mine.bins)] = mine.bins
        column = reference.columns[name]
        if column.sd:
            shift, spread = (mine.mean - column.mean) / column.sd, mine.sd / column.sd
            sketch.sums[place, :2] = mine.n * shift, mine.n * (spread**2 + shift**2)
    return sketch


def bins_of(scan: TableScan, columns: list[str]) -> dict[str, ColumnReference]:
    """Return bins for numeric, boolean or text columns, chosen from a sample of the table.

    The bins are not yet counted.
    """
    rows = spread(scan, columns)
    found = {}
    for name in columns:
        values = rows[name].drop_null() if name in rows.column_names else pa.chunked_array([], pa.float64())
        plain = values.to_pylist() if pa.types.is_string(values.type) else values.cast(pa.float64()).to_numpy()
        found[name] = msgspec.structs.replace(profile_column(plain), buckets=1)
    return found


def count_by_bin(
    con: duckdb.DuckDBPyConnection, view: str, bins: Mapping[str, ColumnReference], kinds: Mapping[str, pa.DataType]
) -> dict[str, Counts]:
    """Return column -> counts over all rows of `view`, equal to those of a `stats` ruler."""
    if not bins:
        return {}
    asked = [_items(name, one) for name, one in bins.items()]
    values = ", ".join(value for name, one in bins.items() for value in _values(name, one, kinds[name]))
    items = ", ".join(item for items in asked for item in items)
    rows, *found = duck.one_row(con, f"SELECT count(*), {items} FROM (SELECT {values} FROM {quote_name(view)})")
    counted = {}
    for (name, one), items_of_one in zip(bins.items(), asked, strict=True):
        mine, found = found[: len(items_of_one)], found[len(items_of_one) :]
        counted[name] = _counts(one, rows, mine)
    return counted


def _values(name: str, one: ColumnReference, kind: pa.DataType) -> list[str]:
    value, finite = quote_name(f"v {name}"), quote_name(f"f {name}")
    if one.kind == CATEGORICAL:
        return [f"'=' || {quote_name(name)} AS {value}"]  # the prefix leaves '' to stand for values outside all bins
    number = quote_name(name)
    if pa.types.is_boolean(kind):
        number = f"CAST({number} AS INTEGER)"
    number = f"CAST({number} AS DOUBLE)"
    return [f"{number} AS {value}", f"CASE WHEN isfinite({number}) THEN {number} END AS {finite}"]


def _items(name: str, one: ColumnReference) -> list[str]:
    value, finite = quote_name(f"v {name}"), quote_name(f"f {name}")
    if one.kind == CATEGORICAL:
        texts = ", ".join(quote_text(f"={category}") for category in one.categories)
        return [f"count({value})", f"histogram_exact({value}, [{texts}]::VARCHAR[])"]
    clipped = f"CASE WHEN abs({finite}) < {_LARGEST} THEN {finite} ELSE sign({finite}) * {_LARGEST} END"
    edges = ", ".join(f"CAST({quote_text(repr(edge))} AS DOUBLE)" for edge in dict.fromkeys(one.edges))
    return [
        f"count({value})",
        f"count({finite})",
        f"avg({clipped})",
        f"var_pop({clipped})",
        f"histogram({finite}, [{edges}]::DOUBLE[])",
    ]


def _counts(one: ColumnReference, rows: int, found: list[Any]) -> Counts:
    if one.kind == CATEGORICAL:
        there, counted = found
        counted = counted or {}
        known = [counted.get(f"={category}", 0) for category in one.categories]
        return Counts(n=there, nulls=rows - there, nans=0, mean=0.0, m2=0.0, bins=(*known, there - sum(known)))
    there, n, mean, variance, counted = found
    counted = dict(counted or {})
    inner = [counted.pop(edge, 0) for edge in one.edges]  # among equal edges, the first gets the whole count
    return Counts(
        n=n,
        nulls=rows - there,
        nans=there - n,
        mean=mean or 0.0,
        m2=(variance or 0.0) * n,
        bins=(*inner, n - sum(inner)),
    )
