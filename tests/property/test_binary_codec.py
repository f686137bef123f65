"""Bodies of `infer`: what is encoded comes back to the bit, and what is wrong is refused and does nothing else."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mainspring.core.errors import Invalid
from mainspring.registry.model import TensorSpec
from mainspring.serving.protocol import binary
from mainspring.serving.protocol.asked import Answered
from mainspring.serving.protocol.codec import decode_infer, encode_infer
from mainspring.serving.protocol.schema import TensorSchema
from mainspring.serving.protocol.tensor import DATATYPES, DTYPES, Tensor

NUMBERS = [each for each in DATATYPES if each != "BYTES"]
IN_JSON = [each for each in NUMBERS if each != "FP16"]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str] = NUMBERS, *, finite: bool = False) -> tuple[str, Any]:
    datatype = draw(st.sampled_from(datatypes))
    dtype, shape = DTYPES[datatype], draw(SHAPES)
    elements = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False) if finite and dtype.kind == "f" else None
    return datatype, draw(hnp.arrays(dtype, shape, elements=elements))


@st.composite
def byte_lists(draw: st.DrawFn) -> tuple[tuple[int, ...], list[bytes]]:
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    return shape, draw(st.lists(st.binary(max_size=20), min_size=count, max_size=count))


def body(*inputs: dict[str, Any], tail: bytes = b"") -> tuple[bytes, int]:
    head = json.dumps({"inputs": list(inputs)}).encode()
    return head + tail, len(head)


@given(arrays(), st.integers(0, 9))
def test_numbers_come_back_from_anywhere_in_a_body(made: tuple[str, Any], spaces: int) -> None:
    datatype, array = made
    raw = binary.write(array, datatype)
    assert len(raw) == array.nbytes
    head = {"name": "x" * (1 + spaces), "shape": array.shape, "datatype": datatype}  # wherever the bytes begin
    content, length = body({**head, "parameters": {"binary_data_size": len(raw)}}, tail=raw)
    (tensor,) = decode_infer(content, length).asked.inputs
    assert (tensor.shape, tensor.datatype) == (array.shape, datatype)
    assert tensor.data.dtype == array.dtype
    assert tensor.data.tobytes() == array.tobytes()  # to the bit, also where it is NaN
    assert np.shares_memory(tensor.data, np.frombuffer(content, np.uint8))


@given(byte_lists())
def test_bytes_come_back(made: tuple[tuple[int, ...], list[bytes]]) -> None:
    shape, elements = made
    raw = binary.write(elements, "BYTES")
    assert binary.read("x", "BYTES", shape, memoryview(raw)) == elements
    assert raw == b"".join(struct.pack("<I", len(each)) + each for each in elements)


@given(arrays(IN_JSON, finite=True), st.booleans())
def test_json_comes_back_flat_and_nested(made: tuple[str, Any], nested: bool) -> None:
    datatype, array = made
    data = array.tolist() if nested else array.ravel().tolist()
    content, _ = body({"name": "x", "shape": array.shape, "datatype": datatype, "data": data})
    (tensor,) = decode_infer(content).asked.inputs
    read = TensorSchema([TensorSpec("x", datatype, (-1,) * array.ndim)], max_rows=64).read([tensor]).columns["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(st.lists(arrays(), min_size=1, max_size=4), byte_lists(), st.data())
def test_replies_come_back(made: list[tuple[str, Any]], texts: tuple[tuple[int, ...], list[bytes]], data: Any) -> None:
    outputs = [Tensor(f"o{place}", datatype, array.shape, array) for place, (datatype, array) in enumerate(made)]
    outputs.append(Tensor("texts", "BYTES", *texts))
    in_json = [each for each in outputs if each.datatype not in ("FP16", "BYTES")]
    plain = {each.name for each in in_json if data.draw(st.booleans())}
    wanted = frozenset(each.name for each in outputs if each.name not in plain)
    content, length = encode_infer(Answered("m", "1", outputs, {"prediction_ids": ["a"]}, "mine"), wanted)
    assert length is not None
    head, position = json.loads(content[:length]), length
    assert (head["id"], head["parameters"]) == ("mine", {"prediction_ids": ["a"]})
    for each, told in zip(outputs, head["outputs"], strict=True):
        assert (told["name"], told["datatype"], tuple(told["shape"])) == (each.name, each.datatype, each.shape)
        if each.name in plain:
            flat = each.data.ravel().tolist()
            assert told["data"] == [None if isinstance(one, float) and not np.isfinite(one) else one for one in flat]
            continue
        assert "data" not in told
        size = told["parameters"]["binary_data_size"]
        found = binary.read(each.name, each.datatype, each.shape, memoryview(content)[position : position + size])
        position += size
        if each.datatype == "BYTES":
            assert found == each.data
        else:
            assert found.tobytes() == each.data.tobytes()
    assert position == len(content)


@given(st.sampled_from(DATATYPES), SHAPES, st.binary(max_size=64), st.integers(0, 80))
def test_bytes_that_do_not_fit_are_refused_and_nothing_else_happens(
    datatype: str, shape: tuple[int, ...], raw: bytes, size: int
) -> None:
    content, length = body(
        {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}, tail=raw
    )
    if size != len(raw):
        with pytest.raises(Invalid, match=r"'x'|after the data of its last input"):
            decode_infer(content, length)
        return
    try:
        (tensor,) = decode_infer(content, length).asked.inputs
    except Invalid:
        return
    assert binary.write(tensor.data, datatype) == raw


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
@example(b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}', 20)
@example(b"\xff" * 8, None)
def test_arbitrary_bytes_are_only_refused(content: bytes, length: int | None) -> None:
    with pytest.raises(Invalid):
        decode_infer(content, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = {
    "name": st.just("x") | JSON,
    "shape": st.just([1, 2]) | st.lists(st.integers(), max_size=3) | JSON,
    "datatype": st.sampled_from([*DATATYPES, "BF16"]) | JSON,
    "data": st.just([1, 2]) | st.lists(st.integers() | st.floats() | st.booleans() | st.text(max_size=3)) | JSON,
    "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20) | JSON}) | JSON,
}


@given(st.lists(st.fixed_dictionaries({}, optional=PARTS), max_size=2), st.binary(max_size=20), JSON, JSON)
def test_whatever_has_the_form_of_a_request_is_read_or_refused(
    inputs: list[dict[str, Any]], tail: bytes, parameters: Any, outputs: Any
) -> None:
    document = {"inputs": inputs}
    document |= {"parameters": parameters} if parameters is not None else {}
    document |= {"outputs": outputs} if outputs is not None else {}
    head = json.dumps(document).encode()
    schemas = [TensorSchema([TensorSpec("x", each, (-1, 2))], max_rows=4) for each in DATATYPES]
    try:
        asked = decode_infer(head + tail, len(head)).asked
    except Invalid:
        return
    for schema in schemas:
        try:
            rows = schema.read(asked.inputs)
        except Invalid:
            continue
        assert rows.count == 1
        assert rows.columns["x"].shape == (1, 2)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0), (0, 0)])
def test_what_has_no_element_is_refused(datatype: str, shape: tuple[int, ...]) -> None:
    content, length = body({"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": 0}})
    inputs = decode_infer(content, length).asked.inputs
    schema = TensorSchema([TensorSpec("x", datatype, (-1,) * len(shape))], max_rows=4)
    with pytest.raises(Invalid, match="'x' has"):
        schema.read(inputs)
