"""What a model file may hold, read from its bytes alone: no file beside it, no operator from elsewhere.

An ONNX file is one protobuf message. This walks the few messages in which a tensor or a node can stand and skips the
rest, so that a process without the `onnx` package can tell before it hands the file to a runtime. Field numbers are
those of onnx/onnx.proto (IR version 13); the wire format is that of protobuf's encoding specification.
"""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.errors import Corrupt
from mainspring.registry.number_runs import end_of_run

OPERATOR_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL
_DEEPEST = 32  # graphs inside graphs (the branches of an If)

# message -> field number -> the message that stands there
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
}

_NODE_OPERATOR, _NODE_DOMAIN, _OPERATOR_SET_DOMAIN = 4, 7, 1
_MODEL_FUNCTION, _FUNCTION_NAME, _FUNCTION_DOMAIN = 25, 1, 10
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14


def check_onnx(content: bytes, name: str = "model.onnx") -> None:
    """Return if `content` is one whole ONNX model of standard operators with all its data inside.

    A function that the file itself defines, in whatever domain, is no operator from elsewhere: what it is made of is.

    Raises:
        Corrupt: It is no protobuf message, holds no graph, names data outside the file, or uses other operators.
    """
    numbers: set[int] = set()
    functions: set[tuple[str, str]] = set()  # (domain, name)
    for number, wire, value in _fields(memoryview(content), name):
        numbers.add(number)
        if number == _MODEL_FUNCTION and wire == _BYTES and not isinstance(value, int):
            functions.add(_texts(value, _FUNCTION_DOMAIN, _FUNCTION_NAME, name))
    if 7 not in numbers:
        raise Corrupt(f"{name} holds no ONNX graph.")
    _check(memoryview(content), "Model", name, 0, functions)


def _texts(message: memoryview, first: int, second: int, name: str) -> tuple[str, str]:
    """Return two fields of a message; of several occurrences the last counts, as in protobuf."""
    found = {
        number: bytes(value).decode(errors="replace")
        for number, _, value in _fields(message, name)
        if number in (first, second) and not isinstance(value, int)
    }
    return found.get(first, ""), found.get(second, "")


def _check(message: memoryview, kind: str, name: str, depth: int, functions: set[tuple[str, str]]) -> None:
    if depth > 8 * _DEEPEST:
        raise Corrupt(f"{name} nests graphs deeper than {_DEEPEST}.")
    if kind == "Tensor":
        _check_tensor(message, name)
        return
    children = _CHILDREN.get(kind, {})
    for number, wire, value in _fields(message, name, skip_runs=kind == "Attribute"):
        if isinstance(value, int):
            continue
        if wire == _BYTES and number in children:
            _check(value, children[number], name, depth + 1, functions)
        elif (kind, number) in (("Node", _NODE_DOMAIN), ("OperatorSet", _OPERATOR_SET_DOMAIN)):
            domain = bytes(value).decode(errors="replace")
            if domain in OPERATOR_DOMAINS:
                continue
            own = (
                _texts(message, _NODE_DOMAIN, _NODE_OPERATOR, name) in functions
                if kind == "Node"
                else any(domain == each for each, _ in functions)
            )
            if not own:
                raise Corrupt(f"{name} uses operators of the domain {domain!r}, which is not one of ONNX's own.")


def _check_tensor(message: memoryview, name: str) -> None:
    tensor, outside = "", False
    for number, _, value in _fields(message, name):
        if number == _TENSOR_NAME and not isinstance(value, int):
            tensor = bytes(value).decode(errors="replace")
        outside |= number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == _EXTERNAL)
    if outside:
        raise Corrupt(f"{name} keeps the tensor {tensor!r} in another file; a bundle's model holds all its data.")


def _fields(message: memoryview, name: str, *, skip_runs: bool = False) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value), an int of a varint, else its bytes; leave an attribute's runs out."""
    position, end = 0, len(message)
    while position < end:
        if skip_runs and (beyond := end_of_run(message, position)) > position:
            position = beyond
            continue
        key, position = _varint(message, position, name)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, position = _varint(message, position, name)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position, name)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise Corrupt(f"{name} is not an ONNX file: byte {position} begins no protobuf field.")
        if position + size > end:
            raise Corrupt(f"{name} is cut short: a field of {size} bytes begins {end - position} before its end.")
        yield number, wire, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int, name: str) -> tuple[int, int]:
    value, shift = 0, 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise Corrupt(f"{name} is cut short or not an ONNX file: no number ends at byte {position}.")
