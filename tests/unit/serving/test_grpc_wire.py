"""Our description of the protocol is what protoc makes of our file, and agrees with that of Triton's clients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from mainspring.core.errors import Invalid
from mainspring.serving.grpc import wire

FOLDER = Path(wire.__file__).parent
OURS = descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "inference.binpb").read_bytes()).file[0]


def theirs() -> descriptor_pb2.FileDescriptorProto:
    merged = descriptor_pb2.FileDescriptorProto()
    for module in (model_config_pb2, service_pb2):
        merged.MergeFromString(module.DESCRIPTOR.serialized_pb)
    return merged


@pytest.mark.parametrize("name", ["inference", "health"])
def test_the_descriptor_is_what_protoc_makes_of_the_file(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I", str(FOLDER)]
    subprocess.run([*command, f"--descriptor_set_out={made}", f"{name}.proto"], check=True)
    assert made.read_bytes() == (FOLDER / f"{name}.binpb").read_bytes()


def messages(found: Any, above: str = "") -> dict[str, Any]:
    named = {}
    for each in found:
        name = f"{above}{each.name}"
        named[name] = each
        named |= messages(each.nested_type, f"{name}.")
    return named


@pytest.mark.parametrize("name", sorted(messages(OURS.message_type)))
def test_a_message_has_the_numbers_and_types_of_tritons(name: str) -> None:
    ours, known = messages(OURS.message_type)[name], messages(theirs().message_type)[name]
    fields = {field.number: field for field in known.field}
    for field in ours.field:
        same = fields[field.number]
        assert (field.name, field.type, field.label, field.type_name) == (
            same.name,
            same.type,
            same.label,
            same.type_name,
        )
        assert field.HasField("oneof_index") == same.HasField("oneof_index")


def test_enumerations_and_calls_are_tritons() -> None:
    (ours,) = (each for each in OURS.enum_type if each.name == "DataType")
    (known,) = (each for each in theirs().enum_type if each.name == "DataType")
    assert list(ours.value) == list(known.value)
    (service,) = theirs().service
    calls = {call.name: call for call in service.method}
    for call in OURS.service[0].method:
        same = calls[call.name]
        assert (call.input_type, call.output_type) == (same.input_type, same.output_type)
        assert (call.client_streaming, call.server_streaming) == (same.client_streaming, same.server_streaming)
    assert f"{OURS.package}.{OURS.service[0].name}" == wire.SERVICE


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(Invalid, match=r"not a valid inference\.ModelInferRequest"):
        wire.decode(wire.InferRequest, b"\xff\xff\xff")
