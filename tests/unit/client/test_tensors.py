"""Arrays to bytes and back, for every datatype of the protocol."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mainspring.client.tensors import arrays, binary, in_json
from mainspring.core.errors import Invalid

NUMERIC = st.sampled_from(
    ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">i4", ">f8", ">f2"]
)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


def back(heads: list[dict[str, Any]], content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return a reply that echoes a request."""
    return arrays(json.loads(json.dumps(heads)), memoryview(content))


@given(st.dictionaries(st.text(min_size=1, max_size=5), hnp.arrays(NUMERIC.map(np.dtype), SHAPES), max_size=3))
def test_numbers_come_back_bit_by_bit(inputs: dict[str, np.ndarray[Any, Any]]) -> None:
    heads, content = binary(inputs)
    found = back(heads, content)
    assert list(found) == list(inputs)
    for name, array in inputs.items():
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@given(hnp.arrays(object, SHAPES, elements=st.text(max_size=4) | st.binary(max_size=4)))
def test_texts_come_back_as_bytes(texts: np.ndarray[Any, Any]) -> None:
    found = back(*binary({"x": texts}))["x"]
    assert found.shape == texts.shape
    assert found.ravel().tolist() == [each.encode() if isinstance(each, str) else each for each in texts.ravel()]


def test_views_are_sent_as_they_look() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert (back(*binary({"x": array.T[::-1]}))["x"] == array.T[::-1]).all()


@given(hnp.arrays(st.sampled_from(["?", "u1", "i8", "f4", "f8"]).map(np.dtype), SHAPES, elements={"allow_nan": False}))
def test_json_says_the_same(array: np.ndarray[Any, Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return
    (tensor,) = in_json({"x": array})
    found = arrays([json.loads(json.dumps(tensor))], memoryview(b""))["x"]
    assert (found == array).all()
    assert (found.shape, found.dtype) == (array.shape, array.dtype)


def test_what_the_protocol_does_not_have_is_refused() -> None:
    with pytest.raises(Invalid, match="complex128"):
        binary({"x": np.array([1j])})
    with pytest.raises(Invalid, match="FP16"):
        in_json({"x": np.zeros(2, np.float16)})
    with pytest.raises(Invalid, match="'x' contains a int"):
        binary({"x": np.array(["a", 1], object)})
    head = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    with pytest.raises(ValueError, match="beyond"):
        arrays([head], memoryview(b"1234"))
