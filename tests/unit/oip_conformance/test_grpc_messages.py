"""The conformance suite's own messages over gRPC, against ours, which are compared with Triton's."""

from __future__ import annotations

from typing import Any

import pytest

from mainspring.serving.grpc import wire
from oip_conformance.grpc_subject import MESSAGES

NESTED = {
    "Tensor": "ModelInferRequest.InferInputTensor",
    "RequestedOutput": "ModelInferRequest.InferRequestedOutputTensor",
    "TensorMetadata": "ModelMetadataResponse.TensorMetadata",
}


def fields(message: Any) -> dict[int, tuple[Any, ...]]:
    return {each.number: (each.name, each.type, each.is_repeated) for each in message.DESCRIPTOR.fields}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_numbers_and_types_of_ours(name: str) -> None:
    known = fields(wire.message(NESTED.get(name, name)))
    found = fields(MESSAGES[name])
    assert found == {number: known[number] for number in found}
    missing = {each[0] for number, each in known.items() if number not in found}
    assert missing <= {"parameters"}


def test_an_output_is_as_an_input() -> None:
    assert fields(wire.message("ModelInferResponse.InferOutputTensor")) == fields(
        wire.message("ModelInferRequest.InferInputTensor")
    )
