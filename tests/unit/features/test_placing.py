from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from mainspring.features.offline.placing import Kind, placed

KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i": (pa.int64(), [2**63 - 1, -(2**63), 0, None]),
    "j": (pa.int32(), [1, None, -7]),
    "f": (pa.float64(), [0.5, None, float("inf")]),
    "g": (pa.float32(), [0.5, None, -2.0]),
    "b": (pa.bool_(), [True, False, None]),
    "s": (pa.string(), ["", "ü", None, "a long string that is not a small one"]),
    "t": (pa.timestamp("us", tz="UTC"), [0, -5, None, 10**15]),
}


def batches(rows: int, left_out: set[int], first: int = 0) -> tuple[list[pa.RecordBatch], dict[str, list[Any]]]:
    """Some rows in any order, in batches that are slices of a larger one, and the columns as they should come."""
    rng = random.Random(rows)
    values = {name: [rng.choice(of) for _ in range(rows)] for name, (_, of) in KINDS.items()}
    order = [row for row in range(rows) if row not in left_out]
    rng.shuffle(order)
    whole = pa.record_batch(
        {
            "_i": pa.array([row + first for row in order], pa.int64()),
            **{name: pa.array([values[name][row] for row in order], kind) for name, (kind, _) in KINDS.items()},
        }
    )
    cuts = sorted({0, len(order), *(rng.randrange(len(order) + 1) for _ in range(4))})
    pieces = [whole.slice(start, end - start) for start, end in pairwise(cuts)]
    wanted = {
        name: [None if row in left_out else value for row, value in enumerate(column)]
        for name, column in values.items()
    }
    return pieces, wanted


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 1000])
@pytest.mark.parametrize("first", [0, 5])
def test_every_value_comes_to_its_place_and_null_to_all_others(rows: int, first: int) -> None:
    left_out = {row for row in range(rows) if row % 5 == 3}
    pieces, wanted = batches(rows, left_out, first)
    found = placed(pieces, rows, {name: Kind(kind) for name, (kind, _) in KINDS.items()}, first)
    for name, (kind, _) in KINDS.items():
        found[name].validate(full=True)
        column = found[name].cast(pa.int64()) if pa.types.is_timestamp(kind) else found[name]
        assert found[name].type == kind
        assert column.to_pylist() == wanted[name]


def test_a_default_stands_where_there_is_no_value() -> None:
    pieces, wanted = batches(50, {3, 4})
    found = placed(pieces, 50, {"i": Kind(pa.int64(), -1), "f": Kind(pa.float64(), 0.25)})
    assert found["i"].to_pylist() == [-1 if value is None else value for value in wanted["i"]]
    assert found["f"].to_pylist() == [0.25 if value is None else value for value in wanted["f"]]
    assert found["i"].null_count == 0


def test_nothing_gives_nulls_of_the_right_type() -> None:
    for kind, _ in KINDS.values():
        found = placed([], 3, {"x": Kind(kind)})["x"]
        assert (found.type, found.null_count, len(found)) == (kind, 3, 3)
        assert len(placed([], 0, {"x": Kind(kind)})["x"]) == 0


def test_another_width_is_cast() -> None:
    batch = pa.record_batch({"_i": pa.array([1, 0], pa.int64()), "x": pa.array([1.5, None], pa.float64())})
    assert placed([batch], 2, {"x": Kind(pa.float32())})["x"].to_pylist() == [None, 1.5]
