"""One `infer`: from a message to a message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.serving.grpc import wire
from mainspring.serving.protocol import binary
from mainspring.serving.protocol.asked import DEFAULTS, Answered, Asked, Parameters
from mainspring.serving.protocol.tensor import BYTES, DTYPES, Tensor, count_of, shown

MAX_NAME = 256
# Datatype -> the field of `InferTensorContents` that holds its values. FP16 has none.
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def read_request(message: Any, parameters: Parameters | None = None) -> Asked:
    """Return the request in a `ModelInferRequest`, whose parameters may have been read before.

    Raises:
        Invalid: It does not follow the protocol.
    """
    if len(message.id) > MAX_NAME:
        raise Invalid(f"The id has {len(message.id)} characters; the maximum is {MAX_NAME}.")
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
        raise Invalid("Parameter 'sequence_id': this server does not support sequences.")
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
        raise Invalid(f"An output has a name of {len(name)} characters; a name must have 1 to {MAX_NAME}.")
    for parameter, what in (("shared_memory_region", "shared memory"), ("classification", "classification")):
        if parameter in message.parameters:
            raise Invalid(f"Output {name!r}: this server does not support {what}.")
    return name


def read_inputs(message: Any) -> list[Tensor]:
    """Return the inputs of a `ModelInferRequest`.

    Raises:
        Invalid: Values are missing, too few, too many or of another kind than the datatype says; the message names the
            input.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise Invalid(f"The request has {len(message.inputs)} inputs and {len(raw)} raw_input_contents.")
    return [_input(each, raw[place] if raw else None) for place, each in enumerate(message.inputs)]


def write_outputs(message: Any, tensors: Sequence[Tensor], *, raw: bool) -> None:
    """Put tensors into a `ModelInferResponse`: as raw bytes, or by kind where every one of them has a kind."""
    raw = raw or any(each.datatype not in FIELDS for each in tensors)
    for each in tensors:
        output = message.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        if raw:
            message.raw_output_contents.append(binary.write(each.data, each.datatype))
        else:
            getattr(output.contents, FIELDS[each.datatype]).extend(_values(each))


def _input(message: Any, raw: bytes | None) -> Tensor:
    name, datatype, shape = message.name, message.datatype, tuple(message.shape)
    if not 1 <= len(name) <= MAX_NAME:
        raise Invalid(f"An input has a name of {len(name)} characters; a name must have 1 to {MAX_NAME}.")
    if "shared_memory_region" in message.parameters:
        raise Invalid(f"Input {name!r}: this server does not support shared memory.")
    if datatype not in DTYPES:
        raise Invalid(
            f"Input {name!r} has the unknown datatype {datatype[:20]!r}.", fix=f"the datatypes are {', '.join(DTYPES)}."
        )
    if raw is not None:
        if message.HasField("contents"):
            raise Invalid(f"Input {name!r} has both contents and raw_input_contents.")
        return Tensor(name, datatype, shape, binary.read(name, datatype, shape, memoryview(raw)))
    return _typed(name, datatype, shape, message.contents)


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Tensor:
    field = FIELDS.get(datatype)
    if field is None:
        raise Invalid(
            f"Input {name!r} is of {datatype}, which contents cannot carry.", fix="send it in raw_input_contents."
        )
    others = sorted(each.name for each, _ in contents.ListFields() if each.name != field)
    if others:
        raise Invalid(f"Input {name!r} is of {datatype} and has {others[0]}; it must have {field}.")
    values = getattr(contents, field)
    if len(values) != count_of(name, shape):
        raise Invalid(f"Input {name!r} has the shape {shown(shape)} and {len(values)} values.")
    if datatype == BYTES:
        return Tensor(name, datatype, shape, list(values))
    try:
        return Tensor(name, datatype, shape, np.array(values, DTYPES[datatype]).reshape(shape))
    except OverflowError:
        raise Invalid(f"Input {name!r} contains a value that is not {datatype}.") from None


def _values(tensor: Tensor) -> Iterable[Any]:
    if tensor.datatype != BYTES:
        return np.asarray(tensor.data).ravel().tolist()
    flat = tensor.data if isinstance(tensor.data, list) else tensor.data.ravel().tolist()
    return [each if isinstance(each, bytes) else str(each).encode() for each in flat]
