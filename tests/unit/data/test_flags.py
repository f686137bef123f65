"""Which rows of a load count, whatever the hashes of their keys do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mainspring.core.schema import Float64
from mainspring.data.flags import counting_rows, in_order, ranks
from mainspring.data.model import Source

FACTS = Source("facts", schema={"x": Float64, "y": Float64}, event_time="at")
NAN = float("nan")
# x, y, event, visible; in order of arrival.
ROWS = [
    (1.0, 1.0, 1, 1),
    (1.0, 2.0, 2, 9),  # shadowed by the fourth
    (1.0, 1.0, 1, 1),  # shadows the first
    (1.0, 2.0, 3, 4),
    (NAN, 0.0, 2, 3),
    (-NAN, -0.0, 1, 4),  # shadowed by the one before
    (None, 1.0, 9, 9),
]


@pytest.mark.parametrize("hashes", [[0] * 7, [1, 2, 1, 2, 3, 3, 4], [1, 1, 1, 1, 2, 2, 2]])
def test_rows_count_by_their_keys_though_hashes_collide(hashes: list[int]) -> None:
    x, y, event, visible = ([row[place] for row in ROWS] for place in range(4))
    instant = pa.timestamp("us", tz="UTC")
    columns: dict[str, Any] = {"x": x, "y": y, "at": pa.array(event, instant)}
    rows = pa.table(columns | {"_visible_at": pa.array(visible, instant), "_seq": range(7)})
    counted = counting_rows(rows, ["x", "y"], ranks(rows, FACTS), np.array(hashes, np.uint64) << np.uint64(40))
    assert np.flatnonzero(counted.counts).tolist() == [2, 3, 4]
    assert sorted(counted.heads.tolist()) == [2, 3, 4]
    assert sorted(counted.firsts.tolist()) == [2, 3, 4]


@pytest.mark.parametrize("reach", [1, 300_000])
def test_rows_are_put_in_any_order(reach: int) -> None:
    order = np.arange(300_000)
    for start in range(0, len(order), reach):
        order[start : start + reach] = order[start : start + reach][::-1]
    order[[5, 70_000]] = order[[6, 70_001]]
    rows = pa.table({"x": pa.chunked_array([pa.array(range(70_000)), pa.array(range(70_000, 300_000))])})
    assert in_order(rows, order)["x"].to_pylist() == order.tolist()


@pytest.mark.parametrize("reach", [50, 1_000])
def test_rows_with_more_text_than_one_array_holds_are_put_in_order(reach: int) -> None:
    order = np.arange(1_000)
    for start in range(0, len(order), reach):
        order[start : start + reach] = order[start : start + reach][::-1]
    texts = pa.chunked_array([pa.array(f"{place:0100}" for place in part) for part in np.split(np.arange(1_000), 8)])
    ordered = in_order(pa.table({"x": range(1_000), "text": texts}), order, text_bytes=30_000)
    assert ordered["x"].to_pylist() == order.tolist()
    assert [int(text) for text in ordered["text"].to_pylist()] == order.tolist()
    assert ordered.schema.field("text").type == pa.string()
    assert max(chunk.nbytes for chunk in ordered["text"].chunks) < 30_000
