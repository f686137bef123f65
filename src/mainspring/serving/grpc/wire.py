"""The protocol's messages, as classes made of `inference.binpb`, the descriptor of `inference.proto`.

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


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    described = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("inference.binpb").read_bytes())
    for each in described.file:
        pool.Add(each)
    return pool


POOL = _pool()
_SERVICE: Any = POOL.FindServiceByName(SERVICE)


def message(name: str) -> Any:
    """Return the class of a message of the package `inference`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def decode(kind: Any, content: bytes) -> Any:
    """Return a message.

    Raises:
        Invalid: The bytes are no such message.
    """
    try:
        return kind.FromString(content)
    except DecodeError:
        raise Invalid(f"The request is no {kind.DESCRIPTOR.full_name} that can be read.") from None


# Call -> the classes of its request and of its reply.
CALLS: dict[str, tuple[Any, Any]] = {
    method.name: (message(method.input_type.name), message(method.output_type.name)) for method in _SERVICE.methods
}

InferRequest = message("ModelInferRequest")
InferResponse = message("ModelInferResponse")
StreamResponse = message("ModelStreamInferResponse")
