"""One `infer`: from a message to a message."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.serving.grpc import wire
from mainspring.serving.grpc.tensors import MAX_NAME, read_inputs, write_outputs
from mainspring.serving.protocol.asked import DEFAULTS, Answered, Asked, Parameters


def read_request(message: Any, parameters: Parameters | None = None) -> Asked:
    """Return the request in a `ModelInferRequest`, whose parameters may have been read before.

    Raises:
        Invalid: It does not follow the protocol.
    """
    if len(message.id) > MAX_NAME:
        raise Invalid(f"The id has {len(message.id)} characters; it may have {MAX_NAME}.")
    parameters = parameters or read_parameters(message)
    return Asked(message.id or None, read_inputs(message), [_output(each) for each in message.outputs], parameters)


def write_reply(answered: Answered, *, raw: bool) -> Any:
    """Return a `ModelInferResponse`. What a parameter of the protocol cannot hold is JSON in a string."""
    reply = wire.InferResponse(
        model_name=answered.model_name, model_version=answered.model_version, id=answered.id or ""
    )
    for name, value in answered.parameters.items():
        reply.parameters[name].string_param = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    write_outputs(reply, answered.outputs, raw=raw)
    return reply


def read_parameters(message: Any) -> Parameters:
    """Return the parameters of a `ModelInferRequest`; no tensor is decoded for them.

    Raises:
        Invalid: They do not follow the protocol.
    """
    given = message.parameters
    if not given:
        return DEFAULTS
    values = {name: _value(parameter) for name, parameter in given.items()}
    if values.get("sequence_id") not in (None, 0, ""):
        raise Invalid("Parameter 'sequence_id': this server keeps no sequences.")
    try:
        return msgspec.convert(values, Parameters)
    except msgspec.ValidationError as error:
        raise Invalid(f"The parameters do not follow the protocol: {error}.") from None


def _value(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def _output(message: Any) -> str:
    name: str = message.name
    if not 1 <= len(name) <= MAX_NAME:
        raise Invalid(f"An output has a name of {len(name)} characters; it must have 1 to {MAX_NAME}.")
    for parameter, what in (("shared_memory_region", "shared memory"), ("classification", "classification")):
        if parameter in message.parameters:
            raise Invalid(f"Output {name!r}: this server has no {what}.")
    return name
