"""The conformance suite's own tensors, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oip_conformance.tensors import FORMATS, close, flat, nested, pack, shape_of, unpack, values

NUMPY = {"BOOL": "bool", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{sign.upper()}INT{bits}": f"<{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


@pytest.mark.parametrize("datatype", FORMATS)
def test_bytes_are_as_numpy_has_them(datatype: str) -> None:
    data = values(datatype, 7)
    content = pack(datatype, data)
    assert content == np.array(data, NUMPY[datatype]).tobytes()
    assert unpack(datatype, content) == data
    if len(content) > 7:
        with pytest.raises(ValueError, match="whole elements"):
            unpack(datatype, content[:-1])


@given(st.lists(st.text(max_size=5), max_size=5))
def test_texts_come_back(texts: list[str]) -> None:
    content = pack("BYTES", texts)
    assert unpack("BYTES", content) == texts
    if content:
        with pytest.raises(ValueError, match="cut off"):
            unpack("BYTES", content[:-1])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_nesting_is_numpys(shape: list[int]) -> None:
    data = list(range(int(np.prod(shape))))
    made = nested(data, shape)
    assert made == np.array(data).reshape(shape).tolist()
    assert flat(made) == data


def test_shapes_and_answers() -> None:
    assert shape_of([-1, 3, -1], 2) == [2, 3, 4]
    assert shape_of([5, -1], 2) == [5, 4]
    assert close([1.0, None, "a"], [1.00001, None, "a"])
    assert not close([1.0], [1.1])
    assert not close([1.0], [1.0, 2.0])
