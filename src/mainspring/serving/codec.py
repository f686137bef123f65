"""Open Inference Protocol in JSON: requests and replies as typed values.

https://github.com/open-inference/open-inference-protocol, REST, version 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from mainspring.core.errors import Invalid

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class InputTensor(msgspec.Struct, frozen=True):
    """One input of a request. `data` is flat or nested as `shape` says, in row-major order."""

    name: Name
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that a request asks for."""

    name: Name
    parameters: dict[str, Any] | None = None


class Parameters(msgspec.Struct, frozen=True):
    """What may stand in a request's parameters; others are ignored, as the protocol wants.

    `timeout` is in microseconds and shortens the endpoint's deadline; priority 1 is served first, 0 is the default (and
    the last), as Triton has it.
    """

    feature_statuses: bool = False
    priority: Annotated[int, msgspec.Meta(ge=0, le=2**32)] = 0
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0


class InferRequest(msgspec.Struct, frozen=True):
    """The body of `infer`."""

    inputs: list[InputTensor]
    id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, frozen=True):
    """One output of a reply, flat in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    data: Sequence[Any]


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply to `infer`."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    parameters: Mapping[str, Any]
    id: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """What a refused request is told."""

    error: str


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def decode_infer(body: bytes) -> InferRequest:
    """Return the request in `body`.

    Raises:
        Invalid: It is not JSON, or not of the protocol; the message names the place.
    """
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(f"The request does not follow the protocol: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Invalid("The body nests deeper than any tensor.") from None


def flat(data: list[Any]) -> list[Any]:
    """Return the innermost values of nested lists, in row-major order; what is flat is returned as it is."""
    while data and type(data[0]) is list:
        flattened: list[Any] = []
        for row in data:
            if type(row) is not list:
                raise Invalid("Its data is nested unevenly.")
            flattened.extend(row)
        data = flattened
    return data
