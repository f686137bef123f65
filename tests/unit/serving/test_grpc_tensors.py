"""Tensors go through the protocol's messages unchanged, raw and by kind; what does not fit is refused by name."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mainspring.core.errors import Invalid
from mainspring.serving.grpc import wire
from mainspring.serving.grpc.infer import FIELDS, read_inputs, read_request, write_outputs
from mainspring.serving.protocol.tensor import BYTES, DTYPES, Tensor

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str]) -> Tensor:
    datatype, shape = draw(st.sampled_from(datatypes)), draw(SHAPES)
    if datatype == BYTES:
        count = int(np.prod(shape))
        return Tensor("x", datatype, shape, draw(st.lists(st.binary(max_size=20), min_size=count, max_size=count)))
    return Tensor("x", datatype, shape, draw(hnp.arrays(DTYPES[datatype], shape)))


def there_and_back(tensor: Tensor, *, raw: bool) -> Tensor:
    """Write a tensor as an output, and read what was written as an input."""
    reply = wire.InferResponse()
    write_outputs(reply, [tensor], raw=raw)
    request = wire.InferRequest()
    (output,) = wire.InferResponse.FromString(reply.SerializeToString()).outputs
    sent = request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    if output.HasField("contents"):
        sent.contents.CopyFrom(output.contents)
    request.raw_input_contents.extend(reply.raw_output_contents)
    (back,) = read_inputs(request)
    return back


def bits(tensor: Tensor) -> Any:
    """Return what two equal tensors share, NaN's bits included."""
    return tensor.data if isinstance(tensor.data, list) else (tensor.data.dtype.str, tensor.data.tobytes())


@given(tensors(list(DTYPES)), st.booleans())
def test_a_tensor_comes_through_as_it_was(tensor: Tensor, raw: bool) -> None:
    back = there_and_back(tensor, raw=raw)
    assert (back.name, back.datatype, back.shape) == (tensor.name, tensor.datatype, tensor.shape)
    if raw or tensor.datatype == BYTES:
        assert bits(back) == bits(tensor)
    else:  # a NaN may change its payload between 32 and 64 bits
        np.testing.assert_array_equal(back.data, tensor.data)


def test_text_is_sent_as_utf_8_and_one_fp16_makes_all_of_them_raw() -> None:
    reply = wire.InferResponse()
    write_outputs(reply, [Tensor("t", BYTES, (2,), ["é", b"\xff"])], raw=False)
    assert list(reply.outputs[0].contents.bytes_contents) == ["é".encode(), b"\xff"]
    reply = wire.InferResponse()
    half, whole = np.ones(2, np.float16), np.ones(2, np.int64)
    write_outputs(reply, [Tensor("h", "FP16", (2,), half), Tensor("w", "INT64", (2,), whole)], raw=False)
    assert list(reply.raw_output_contents) == [half.tobytes(), whole.tobytes()]
    assert not any(output.HasField("contents") for output in reply.outputs)


def request(datatype: str, shape: list[int], raw: bytes | None = None, name: str = "x", **contents: Any) -> Any:
    made = wire.InferRequest()
    each = made.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(each.contents, field).extend(values)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (request("FP32", [2], b"\0" * 7), "'x' has 7 bytes"),
        (request("FP32", [-1], b"\0" * 4), r"'x' has the shape \[-1\]"),
        (request("FP32", [2**20, 2**20], b""), "'x' has 0 bytes"),
        (request("FP32", [2**40, 2**40], b""), "'x' has the shape"),
        (request("FP32", [0, 2**62], b""), "'x' has the shape"),
        (request("FP32", [0, 2**62], fp32_contents=[]), "'x' has the shape"),
        (request("BOOL", [1], b"\2"), "'x' contains a byte"),
        (request("BYTES", [1], b"\xff\xff\xff\xff"), "'x' ends inside"),
        (request("BYTES", [10**12], b"\0" * 8), "'x' has 8 bytes"),
        (request("COMPLEX", [1], b"\0" * 8), "datatype 'COMPLEX'"),
        (request("FP16", [1], fp32_contents=[1.0]), "FP16, which contents cannot carry"),
        (request("FP32", [1], fp64_contents=[1.0]), "must have fp32_contents"),
        (request("FP32", [1], fp32_contents=[1.0], fp64_contents=[1.0]), "must have fp32_contents"),
        (request("FP32", [2], fp32_contents=[1.0]), r"shape \[2\] and 1 values"),
        (request("INT8", [1], int_contents=[128]), "not INT8"),
        (request("UINT16", [1], uint_contents=[65536]), "not UINT16"),
        (request("FP32", [1], b"\0" * 4, fp32_contents=[1.0]), "both contents and raw_input_contents"),
        (request("FP32", [1], b"\0" * 4, name=""), "name of 0 characters"),
        (request("FP32", [1], b"\0" * 4, name="n" * 300), "name of 300 characters"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(message: Any, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_request(message)


def test_each_input_has_its_raw_contents_or_none_has() -> None:
    message = request("FP32", [1], b"\0" * 4)
    message.raw_input_contents.append(b"")
    with pytest.raises(Invalid, match="1 inputs and 2 raw_input_contents"):
        read_inputs(message)


def read(message: Any) -> Tensor | Invalid:
    try:
        return read_request(message).inputs[0]
    except Invalid as error:
        return error


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_no_more_than_refused(content: bytes) -> None:
    with suppress(Invalid):
        read_request(wire.decode(wire.InferRequest, content))


@given(
    st.sampled_from([*DTYPES, "", "FP8"]),
    st.lists(st.integers(-2, 4) | st.integers(-(2**63), 2**63 - 1), max_size=20),
    st.none() | st.binary(max_size=64),
    st.dictionaries(st.sampled_from(["fp32_contents", "int_contents"]), st.lists(st.integers(0, 300), max_size=3)),
)
def test_garbage_is_a_tensor_of_its_shape_or_refused_by_name(
    datatype: str, shape: list[int], raw: bytes | None, contents: dict[str, list[int]]
) -> None:
    found = read(request(datatype, shape, raw, **contents))
    if isinstance(found, Invalid):
        assert "'x'" in found.what
    elif isinstance(found.data, np.ndarray):
        assert found.data.shape == tuple(shape) == found.shape
        assert raw is None or found.data.tobytes() == raw
    else:
        assert len(found.data) == int(np.prod(shape))


def parameters(**values: Any) -> Any:
    message = wire.InferRequest(id="mine")
    for name, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    return message


def test_parameters_are_read() -> None:
    asked = read_request(parameters(priority=2, timeout=3_000_000, feature_statuses=True, unknown="x"))
    assert asked.id == "mine"
    assert (asked.parameters.priority, asked.parameters.timeout, asked.parameters.feature_statuses) == (
        2,
        3_000_000,
        True,
    )


@pytest.mark.parametrize(
    "values", [{"priority": -1}, {"priority": "high"}, {"timeout": 1.5}, {"sequence_id": 7}, {"feature_statuses": 1}]
)
def test_parameters_that_cannot_be_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=next(iter(values))):
        read_request(parameters(**values))


def test_every_datatype_but_half_floats_has_a_field() -> None:
    assert set(DTYPES) - set(FIELDS) == {"FP16"}
    known = {field.name for field in wire.message("InferTensorContents").DESCRIPTOR.fields}
    assert set(FIELDS.values()) == known
