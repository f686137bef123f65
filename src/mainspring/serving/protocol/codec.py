"""Open Inference Protocol in JSON: requests and replies as typed values.

https://github.com/open-inference/open-inference-protocol, REST, version 2. What comes with a body besides its JSON is
in `serving.protocol.binary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Union, cast

import msgspec

from mainspring.core.errors import Invalid
from mainspring.serving.protocol import binary
from mainspring.serving.protocol.asked import Answered, Asked, Parameters
from mainspring.serving.protocol.tensor import BYTES, DTYPES, Tensor, count_of, shown
from mainspring.serving.protocol.values import LARGEST, checked, flat

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class InputParameters(msgspec.Struct, frozen=True):
    """Known parameters of an input; others are ignored. `binary_data_size` is in bytes."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    shared_memory_region: str | None = None


class OutputParameters(msgspec.Struct, frozen=True):
    """Known parameters of an output; others are ignored."""

    binary_data: bool | None = None
    shared_memory_region: str | None = None
    classification: Any = None


class RestParameters(Parameters, frozen=True):
    """A request's facts of this transport alone: whether outputs come as binary data unless they say otherwise."""

    binary_data_output: bool = False
    sequence_id: int | str = 0


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that a request asks for."""

    name: Name
    parameters: OutputParameters | None = None


class _Input(msgspec.Struct, tag_field="datatype", gc=False):
    name: Name
    shape: tuple[int, ...]
    parameters: InputParameters | None = None
    data: Any = None


def _input(datatype: str, element: Any) -> type[_Input]:
    """Return the struct of an input of one datatype, whose decoder checks every element as it reads it."""
    values = list[element | None] | None
    made = msgspec.defstruct(f"Input{datatype}", [("data", values, None)], bases=(_Input,), tag=datatype, gc=False)
    return cast("type[_Input]", made)


def _element(datatype: str) -> Any:
    largest = LARGEST.get(datatype)
    if largest is not None:
        return Annotated[float, msgspec.Meta(ge=-largest, le=largest)]
    if datatype in ("BOOL", BYTES):
        return bool if datatype == "BOOL" else str
    bits = int(datatype.lstrip("UINT"))
    if datatype.startswith("U"):  # a bound of 64 bits is more than msgspec can say: `_tensor` looks at those
        return Annotated[int, msgspec.Meta(ge=0, le=(1 << bits) - 1 if bits < 64 else None)]
    return Annotated[int, msgspec.Meta(ge=-(1 << bits - 1), le=(1 << bits - 1) - 1)]


_INPUTS = {datatype: _input(datatype, _element(datatype)) for datatype in DTYPES}
_DATATYPE = {struct: datatype for datatype, struct in _INPUTS.items()}
# Those of which the decoder has checked everything but the shape.
_PLAIN: dict[type, str] = {
    struct: datatype for struct, datatype in _DATATYPE.items() if datatype not in ("FP16", "UINT64")
}
if TYPE_CHECKING:
    _AnyInput = _Input
else:
    _AnyInput = Union[tuple(_INPUTS.values())]  # noqa: UP007


class _Request(msgspec.Struct, frozen=True):
    """The body of `infer`, where each input's data are flat and of its type."""

    inputs: list[_AnyInput]
    id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    parameters: RestParameters | None = None
    outputs: list[RequestedOutput] | None = None


class _LooseInput(msgspec.Struct, gc=False):
    name: Name
    shape: tuple[int, ...]
    datatype: str
    parameters: InputParameters | None = None
    data: Any = None


class _LooseRequest(msgspec.Struct, frozen=True):
    """The same with any data: nested, or wrong, and then to be named."""

    inputs: list[_LooseInput]
    id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    parameters: RestParameters | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output of a reply, flat in row-major order."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any] | None = None
    parameters: Mapping[str, Any] | None = None


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply to `infer`."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    parameters: Mapping[str, Any]
    id: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """Body of a refusal."""

    error: str


class Decoded(msgspec.Struct, eq=False):
    """One request. `binary` says which outputs are to come as binary data: these, all of them, or none."""

    asked: Asked
    binary: frozenset[str] | bool = False


_decoder = msgspec.json.Decoder(_Request)
_loose_decoder = msgspec.json.Decoder(_LooseRequest)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode
_NO_TAIL = memoryview(b"")


def decode_infer(body: bytes | memoryview, header_length: int | None = None) -> Decoded:
    """Return the request in `body`.

    Args:
        header_length: Number of its JSON bytes; binary data follows. `None`: all of them.

    Raises:
        Invalid: It is not JSON, or not of the protocol, or the sizes do not fit; the message names the place.
    """
    tail = _NO_TAIL
    if header_length is not None:
        if header_length > len(body):
            raise Invalid(f"The body has {len(body)} bytes, fewer than the {header_length} of its JSON header.")
        whole = memoryview(body)
        body, tail = whole[:header_length], whole[header_length:]
    request: _Request | _LooseRequest
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError:
        request = _loosely(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Invalid("The body is nested deeper than any tensor.") from None
    return _decoded(request, tail)


def _loosely(body: bytes | memoryview) -> _LooseRequest:
    """Return a request whose data are nested or invalid; `_loose` names the fault."""
    try:
        return _loose_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(f"The request does not follow the protocol: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Invalid("The body is nested deeper than any tensor.") from None


def _decoded(request: _Request | _LooseRequest, tail: memoryview) -> Decoded:
    inputs, position = [], 0
    for each in request.inputs:
        datatype = _PLAIN.get(type(each))
        if datatype is not None and each.data is not None and each.parameters is None:
            shape, data = each.shape, each.data
            # The usual case without a call: it costs as much as the rest.
            if len(data) == (shape[0] if len(shape) == 1 else count_of(each.name, shape)):
                inputs.append(Tensor(each.name, datatype, shape, data))
                continue
        if each.parameters is None or (size := _binary_size(each)) is None:
            inputs.append(_tensor(each))
            continue
        if position + size > len(tail):
            raise Invalid(
                f"Input {each.name!r} declares {size} bytes of binary data, but {len(tail) - position} are left "
                "in the body."
            )
        inputs.append(_binary_tensor(each, tail[position : position + size]))
        position += size
    if position != len(tail):
        raise Invalid(f"The body has {len(tail) - position} extra bytes after the data of its last input.")
    parameters = request.parameters
    if parameters is None:
        asked = Asked(request.id, inputs)
    else:
        if parameters.sequence_id not in (0, ""):
            raise Invalid("Parameter 'sequence_id': this server does not support sequences.")
        asked = Asked(request.id, inputs, (), parameters)
    binary_data = parameters is not None and parameters.binary_data_output
    if not request.outputs:
        return Decoded(asked, binary_data)
    asked.outputs = [output.name for output in request.outputs]
    return Decoded(asked, frozenset(each.name for each in request.outputs if _wants_binary(each, binary_data)))


def _wants_binary(output: RequestedOutput, usually: bool) -> bool:
    parameters = output.parameters
    if parameters is None:
        return usually
    if parameters.shared_memory_region is not None or parameters.classification is not None:
        what = "shared memory" if parameters.shared_memory_region is not None else "classification"
        raise Invalid(f"Output {output.name!r}: this server does not support {what}.")
    return usually if parameters.binary_data is None else parameters.binary_data


def _binary_size(each: _Input | _LooseInput) -> int | None:
    parameters = each.parameters
    if parameters is None:
        return None
    if parameters.shared_memory_region is not None:
        raise Invalid(f"Input {each.name!r}: this server does not support shared memory.")
    if parameters.binary_data_size is not None and each.data is not None:
        raise Invalid(f"Input {each.name!r} has both data and binary_data_size.")
    return parameters.binary_data_size


def _tensor(each: _Input | _LooseInput) -> Tensor:
    name, shape, data = each.name, each.shape, each.data
    if data is None:
        raise Invalid(f"Input {name!r} has neither data nor binary_data_size.")
    if isinstance(each, _LooseInput):
        datatype, data = _loose(each)
    elif (datatype := _DATATYPE[type(each)]) == "UINT64":
        checked(name, datatype, data)
    if datatype == "FP16":
        raise Invalid(f"Input {name!r} is FP16, which JSON cannot carry.", fix="send it as binary data.")
    if len(data) != count_of(name, shape):
        raise Invalid(f"Input {name!r} has the shape {shown(shape)} and {len(data)} values.")
    return Tensor(name, datatype, shape, data)


def _loose(each: _Input | _LooseInput) -> tuple[str, list[Any]]:
    datatype = _known(each)
    if type(each.data) is not list:
        raise Invalid(f"Input {each.name!r} has data that is not a list.")
    try:
        values = flat(each.data)
    except Invalid as error:
        raise Invalid(f"Input {each.name!r}: {error.what}") from None
    return datatype, checked(each.name, datatype, values)


def _known(each: _Input | _LooseInput) -> str:
    datatype = each.datatype if isinstance(each, _LooseInput) else _DATATYPE[type(each)]
    if datatype not in DTYPES:
        raise Invalid(
            f"Input {each.name!r} has the datatype {datatype[:20]!r}, which is not one of {', '.join(DTYPES)}."
        )
    return datatype


def _binary_tensor(each: _Input | _LooseInput, raw: memoryview) -> Tensor:
    datatype = _known(each)
    return Tensor(each.name, datatype, each.shape, binary.read(each.name, datatype, each.shape, raw))


def encode_infer(answered: Answered, wanted: frozenset[str] | bool = False) -> tuple[bytes, int | None]:
    """Return the body of a reply, and how many bytes of it are JSON where binary data follows.

    Args:
        wanted: Which outputs are sent as binary data.
    """
    tail: list[bytes] = []
    outputs = []
    for tensor in answered.outputs:
        if wanted is False or (wanted is not True and tensor.name not in wanted):
            outputs.append(OutputTensor(tensor.name, tensor.datatype, tensor.shape, _listed(tensor)))
        else:
            raw = binary.write(tensor.data, tensor.datatype)
            tail.append(raw)
            size = {"binary_data_size": len(raw)}
            outputs.append(OutputTensor(tensor.name, tensor.datatype, tensor.shape, parameters=size))
    header = encode(
        InferResponse(answered.model_name, answered.model_version, outputs, answered.parameters, answered.id)
    )
    return (b"".join((header, *tail)), len(header)) if tail else (header, None)


def _listed(tensor: Tensor) -> list[Any]:
    """Return the elements as JSON has them. NaN and infinities become null."""
    data = tensor.data
    values: list[Any] = data if isinstance(data, list) else (data if data.ndim == 1 else data.ravel()).tolist()
    if tensor.datatype == BYTES:
        return [value.decode(errors="replace") if type(value) is bytes else value for value in values]
    return values
