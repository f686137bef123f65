"""Rows come back as they were packed, and what is damaged is said to be."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.registry.column_codec import Column, Packed, pack, unpack

ROW = st.tuples(st.floats(width=32), st.floats(), st.none() | st.text(max_size=5), st.floats(allow_nan=False))


@settings(deadline=None)
@given(st.lists(ROW, max_size=40))
def test_rows_come_back_bit_for_bit_through_json(rows: list[Any]) -> None:
    narrow, wide, words, answers = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    inputs = {"n": np.array(narrow, np.float32), "w": np.array(wide, np.float64), "t": np.array(words, object)}
    outputs = {"value": np.array(answers, np.float64)}
    again = msgspec.json.decode(msgspec.json.encode(pack(inputs, outputs)), type=Packed)
    found = {**unpack(again.inputs, again.rows), **unpack(again.outputs, again.rows)}
    assert found.pop("t").tolist() == words
    for name, values in found.items():
        assert values.tobytes() == {**inputs, **outputs}[name].tobytes()
        assert values.dtype == {**inputs, **outputs}[name].dtype


def test_ten_thousand_rows_are_small() -> None:
    rng = np.random.default_rng(0)
    inputs = {f"f{place}": rng.normal(size=10_000) for place in range(10)}  # nothing to squeeze
    found = msgspec.json.encode(pack(inputs, {"value": rng.normal(size=10_000)}))
    assert len(found) < 11 * 10_000 * 8 * 1.34


@pytest.mark.parametrize(
    ("column", "word"),
    [
        (Column("f8", zlib.compress(b"\0" * 23)), "23 bytes"),
        (Column("f8", zlib.compress(b"\0" * 8_000_000)), "25 bytes"),  # no more is read than is meant to be there
        (Column("f8", b"\x78\x9c\x00"), "bytes for 3 rows"),
        (Column("f8", b"no zlib"), "damaged"),
        (Column("pickle", b""), "kind"),
        (Column("text", zlib.compress(np.array([0, 1, 2], "<u4").tobytes()), ("a", None)), "word 2 of 2"),
    ],
)
def test_what_is_damaged_is_refused(column: Column, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        unpack({"c": column}, 3)
