"""JSON bodies: what is refused is named, wherever the mistake is; nested data is what flat data is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import Invalid
from mainspring.serving.protocol.asked import Answered
from mainspring.serving.protocol.codec import decode_infer, encode_infer
from mainspring.serving.protocol.tensor import DATATYPES, MAX_RANK, Tensor

INPUT = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}


def decode(*inputs: Any, **fields: Any) -> Any:
    return decode_infer(json.dumps({"inputs": list(inputs), **fields}).encode())


def test_numbers_are_of_their_type_flat_or_nested() -> None:
    for data in ([1, 2.5], [[1], [2.5]]):
        shape = [2] if data == [1, 2.5] else [2, 1]
        (tensor,) = decode({**INPUT, "shape": shape, "data": data}).asked.inputs
        assert tensor.data == [1.0, 2.5]
        assert list(map(type, tensor.data)) == [float, float]


def test_the_order_of_fields_does_not_matter() -> None:
    turned = json.dumps({"id": "a", "inputs": [dict(reversed(INPUT.items()))]}).encode()
    decoded = decode_infer(turned)
    assert decoded.asked.inputs[0].data == [1.0, 2.5]
    assert decoded.asked.id == "a"


def test_outputs_and_parameters() -> None:
    decoded = decode(INPUT, parameters={"priority": 2, "timeout": 5, "feature_statuses": True, "other": [1]})
    asked = decoded.asked.parameters
    assert (asked.priority, asked.timeout, asked.feature_statuses, decoded.binary) == (2, 5, True, False)
    assert decode(INPUT, parameters={"binary_data_output": True}).binary is True
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}]
    decoded = decode(INPUT, parameters={"binary_data_output": True}, outputs=outputs)
    assert (decoded.asked.outputs, decoded.binary) == (["a", "b"], {"a"})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": None}, "'x' has neither data nor binary_data_size"),
    "text as data": ({"data": "1, 2"}, "'x' has data that is not a list"),
    "too few": ({"data": [1]}, "'x' has the shape [2] and 1 values"),
    "too many": ({"data": [1, 2, 3]}, "'x' has the shape [2] and 3 values"),
    "nested, too many": ({"data": [[1, 2], [3, 4]]}, "'x' has the shape [2] and 4 values"),
    "uneven": ({"data": [[1], 2]}, "'x': Its data is nested unevenly"),
    "uneven the other way": ({"data": [1, [2]]}, "'x' contains [2], which is not FP32"),
    "an object": ({"data": [1, {"a": 1}]}, "'x' contains {'a': 1}"),
    "negative": ({"shape": [-2]}, "'x' has the shape [-2], which is not a tensor's"),
    "many dimensions": ({"shape": [1] * (MAX_RANK + 1), "data": [1]}, "which is not a tensor's"),
    "another datatype": ({"datatype": "BF16"}, "'x' has the datatype 'BF16', which is not one of BOOL"),
    "a datatype of another type": ({"datatype": 3}, "$.inputs[0].datatype"),
    "no datatype": ({"datatype": ...}, "datatype"),
    "no name": ({"name": ...}, "name"),
    "an empty name": ({"name": ""}, "$.inputs[0].name"),
    "no shape": ({"shape": ...}, "shape"),
    "a fraction in the shape": ({"shape": [1.5]}, "$.inputs[0].shape[0]"),
    "FP16": ({"datatype": "FP16"}, "'x' is FP16, which JSON cannot carry"),
    "below UINT64": ({"datatype": "UINT64", "data": [-1, 0]}, "'x' contains -1, which is not UINT64"),
    "above UINT64": ({"datatype": "UINT64", "data": [0, 2**64]}, f"'x' contains {2**64}, which is not UINT64"),
    "above UINT8": ({"datatype": "UINT8", "data": [0, 256]}, "'x' contains 256, which is not UINT8"),
    "below INT8": ({"datatype": "INT8", "data": [[-129], [0]]}, "'x' contains -129, which is not INT8"),
    "above INT64": ({"datatype": "INT64", "data": [0, 2**63]}, f"'x' contains {2**63}, which is not INT64"),
    "far above INT64": ({"datatype": "INT64", "data": [0, 10**500]}, "'x' contains 1000"),
    "a whole number beyond FP64": ({"datatype": "FP64", "data": [0, 10**400]}, "'x' contains 1000"),
    "a fraction": ({"datatype": "INT32", "data": [0, 1.5]}, "'x' contains 1.5, which is not INT32"),
    "a float that is whole": ({"datatype": "INT32", "data": [0, 1.0]}, "'x' contains 1.0, which is not INT32"),
    "a number for a boolean": ({"datatype": "BOOL", "data": [True, 1]}, "'x' contains 1, which is not BOOL"),
    "a boolean for a number": ({"datatype": "INT8", "data": [1, True]}, "'x' contains True, which is not INT8"),
    "a number for a text": ({"datatype": "BYTES", "data": ["a", 1]}, "'x' contains 1, which is not BYTES"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    changes, words = WRONG[name]
    with pytest.raises(Invalid) as caught:
        decode({key: value for key, value in {**INPUT, **changes}.items() if value is not ...})
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_this_server_does_not_have_is_refused() -> None:
    with pytest.raises(Invalid, match="sequence_id"):
        decode(INPUT, parameters={"sequence_id": "a"})
    for parameters in ({"shared_memory_region": "r"}, {"classification": 3}):
        with pytest.raises(Invalid, match="Output 'y'"):
            decode(INPUT, outputs=[{"name": "y", "parameters": parameters}])
    with pytest.raises(Invalid, match="'x': this server does not support shared memory"):
        decode({**INPUT, "data": None, "parameters": {"shared_memory_region": "r"}})


@pytest.mark.parametrize("datatype", [each for each in DATATYPES if each not in ("BYTES", "BOOL", "FP16")])
def test_nulls_are_read_where_a_schema_may_take_them(datatype: str) -> None:
    (tensor,) = decode({**INPUT, "datatype": datatype, "data": [None, 1]}).asked.inputs
    assert tensor.data == [None, 1]


def test_a_reply_leaves_out_what_is_not_there() -> None:
    array = np.array([[0.5, np.nan]], np.float32)
    outputs = [Tensor("y", "FP32", (1, 2), array), Tensor("s", "BYTES", (2,), np.array(["a", b"\xff"], object))]
    content, length = encode_infer(Answered("m", "1", outputs, {}))
    assert length is None
    assert json.loads(content) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, None]},
            {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "\ufffd"]},
        ],
        "parameters": {},
    }
