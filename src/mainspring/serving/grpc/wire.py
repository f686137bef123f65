"""The protocol's messages, as classes made of `inference.binpb`, the descriptor of `inference.proto`; and those of
gRPC's health checking, of `health.binpb`.

Read at run time instead of generated: generated code is tied to protobuf versions, and lives in a pool that all of a
process shares, where Triton's own client registers the same names.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mainspring.core.errors import Invalid

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for name in ("inference.binpb", "health.binpb"):
        content = files(__package__).joinpath(name).read_bytes()
        for each in descriptor_pb2.FileDescriptorSet.FromString(content).file:
            pool.Add(each)
    return pool


POOL = _pool()


def message(name: str) -> Any:
    """Return the class of a message of the package `inference`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def decode(kind: Any, content: bytes) -> Any:
    """Return a message.

    Raises:
        Invalid: The bytes are not such a message.
    """
    try:
        return kind.FromString(content)
    except DecodeError:
        raise Invalid(f"The request is not a valid {kind.DESCRIPTOR.full_name} message.") from None


def _calls(service: str) -> dict[str, tuple[Any, Any]]:
    """Return call -> the classes of its request and of its reply."""
    made = message_factory.GetMessageClass
    found: Any = POOL.FindServiceByName(service)
    return {method.name: (made(method.input_type), made(method.output_type)) for method in found.methods}


CALLS = _calls(SERVICE)
HEALTH_CALLS = _calls(HEALTH)

InferRequest = message("ModelInferRequest")
InferResponse = message("ModelInferResponse")
StreamResponse = message("ModelStreamInferResponse")
HealthRequest, HealthResponse = HEALTH_CALLS["Check"]
