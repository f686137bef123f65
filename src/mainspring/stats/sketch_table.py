"""Lossless Arrow rows of sketches and of joint summaries, as the lake's tables and a bundle's history store them.

A sketch is a row for each column: the caller's key columns, `column`, the counts by name, `bins`, and the sums `s1` to
`s4`. A joint summary is one row: the keys, `columns`, `rows`, and the upper triangle of `products`, row by row. Rows of
the same keys are added up, so appending is all that a writer does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.stats.sketches import COUNTS, MOMENTS, WIDTH, Pairs, Sketch

if TYPE_CHECKING:
    import pyarrow as pa

SUMS = tuple(f"s{power}" for power in range(1, MOMENTS + 1))
Keys = tuple[Any, ...]


def sketch_fields() -> list[pa.Field[Any]]:
    """Return the fields of a sketch's rows, without the caller's keys."""
    import pyarrow as pa

    counts = [pa.field(name, pa.int64()) for name in COUNTS]
    sums = [pa.field(name, pa.float64()) for name in SUMS]
    return [pa.field("column", pa.string()), *counts, pa.field("bins", pa.list_(pa.int64())), *sums]


def pair_fields() -> list[pa.Field[Any]]:
    """Return the fields of a joint summary's row, without the caller's keys."""
    import pyarrow as pa

    return [
        pa.field("columns", pa.list_(pa.string())),
        pa.field("rows", pa.int64()),
        pa.field("products", pa.list_(pa.float64())),
    ]


def sketch_rows(sketches: Sequence[Sketch], keys: Mapping[str, pa.Array[Any]]) -> pa.Table:
    """Return the rows of sketches, in their order.

    Args:
        keys: Name -> one value for each sketch, repeated in each of its rows. Their columns come first.
    """
    import pyarrow as pa

    sizes = [len(sketch.columns) for sketch in sketches]
    repeated = np.repeat(np.arange(len(sketches)), sizes)
    counts = _stacked([sketch.counts for sketch in sketches], len(COUNTS), np.int64)
    bins = _stacked([sketch.bins for sketch in sketches], WIDTH, np.int64)
    sums = _stacked([sketch.sums for sketch in sketches], MOMENTS, np.float64)
    offsets = pa.array(range(0, WIDTH * len(bins) + 1, WIDTH), pa.int32())
    arrays = [
        pa.array([column for sketch in sketches for column in sketch.columns], pa.string()),
        *(pa.array(counts[:, place]) for place in range(len(COUNTS))),
        pa.ListArray.from_arrays(offsets, pa.array(bins.ravel())),
        *(pa.array(sums[:, place]) for place in range(MOMENTS)),
    ]
    return _table({name: values.take(repeated) for name, values in keys.items()}, arrays, sketch_fields())


def sketches_of(table: pa.Table, keys: Sequence[str]) -> dict[Keys, Sketch]:
    """Return the sketches in a table by the values of `keys`, in order of appearance.

    A sketch has its columns in order of appearance; rows of the same keys and column are added.
    """
    flat = table.combine_chunks()
    counts = np.stack([flat[name].to_numpy() for name in COUNTS], axis=1) if len(flat) else np.zeros((0, len(COUNTS)))
    sums = np.stack([flat[name].to_numpy() for name in SUMS], axis=1) if len(flat) else np.zeros((0, MOMENTS))
    bins = _lists(flat["bins"])
    groups: dict[Keys, dict[str, list[int]]] = {}
    for row, (column, *key) in enumerate(_tuples(flat, ["column", *keys])):
        groups.setdefault(tuple(key), {}).setdefault(column, []).append(row)
    return {
        key: Sketch(tuple(rows), _added(counts, rows), _added(bins, rows), _added(sums, rows))
        for key, rows in groups.items()
    }


def pair_rows(pairs: Sequence[Pairs], keys: Mapping[str, pa.Array[Any]]) -> pa.Table:
    """Return one row for each joint summary, after the columns of `keys`: name -> one value for each."""
    import pyarrow as pa

    products = [each.products[np.triu_indices(len(each.columns))] for each in pairs]
    arrays = [
        pa.array([list(each.columns) for each in pairs], pa.list_(pa.string())),
        pa.array([each.rows for each in pairs], pa.int64()),
        pa.array(products, pa.list_(pa.float64())),
    ]
    return _table(keys, arrays, pair_fields())


def pairs_of(table: pa.Table, keys: Sequence[str]) -> dict[Keys, Pairs]:
    """Return the joint summaries in a table by the values of `keys`, in order of appearance; equal keys are added.

    Raises:
        ValueError: Rows of the same keys are of different columns.
    """
    found: dict[Keys, Pairs] = {}
    for columns, rows, products, *key in _tuples(table, ["columns", "rows", "products", *keys]):
        upper = np.zeros((len(columns), len(columns)))
        upper[np.triu_indices(len(columns))] = products
        one = Pairs(tuple(columns), rows, upper + np.triu(upper, 1).T)
        before = found.get(tuple(key))
        found[tuple(key)] = one if before is None else before + one
    return found


def _table(keys: Mapping[str, Any], arrays: Sequence[Any], fields: Sequence[Any]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([*(pa.field(name, values.type) for name, values in keys.items()), *fields])
    return pa.Table.from_arrays([*keys.values(), *arrays], schema=schema)


def _stacked(arrays: Sequence[Any], width: int, dtype: type) -> Any:
    return np.concatenate(arrays) if arrays else np.zeros((0, width), dtype)


def _tuples(table: pa.Table, names: Sequence[str]) -> zip[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _lists(column: Any) -> Any:
    """Return lists as an array of shape (rows, WIDTH), shorter ones filled with zeros."""
    lengths = column.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if (lengths == WIDTH).all():
        return values.reshape(-1, WIDTH)
    bins = np.zeros((len(lengths), WIDTH), np.int64)
    bins[np.arange(WIDTH) < lengths[:, None]] = values
    return bins


def _added(values: Any, rows: Mapping[str, Sequence[int]]) -> Any:
    """Return the sums of a column's rows, shape (columns, width)."""
    if all(len(each) == 1 for each in rows.values()):
        return values[[each[0] for each in rows.values()]]
    return np.stack([values[each].sum(axis=0) for each in rows.values()])
