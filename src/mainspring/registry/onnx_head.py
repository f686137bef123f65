"""Reading of the last model in an ONNX graph: one sum of trees, or one linear function, behind any preparation.

A pipeline's graph prepares columns, passes the prepared matrix to its model, and maps the model's sum to an answer. The
reader finds the model, and adds its matrix and its sum to the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.registry.onnx_wire import Value, fields, numbers, varints

Array = np.ndarray[Any, Any]
_TREES = "TreeEnsemble"
_LINEAR = ("LinearClassifier", "LinearRegressor", "MatMul", "Gemm")
_RAW_TYPES = {1: "<f4", 6: "<i4", 7: "<i8", 2: "u1", 11: "<f8"}  # TensorProto's data types
_LISTS = {4: "<f4", 10: "<f8"}


@dataclass(frozen=True, slots=True)
class Head:
    """The last model of a graph: trees or a linear function.

    Args:
        matrix: Name of the tensor that the model takes, shape (rows, features).
        raw: Of trees: name of the tensor with their sum, shape (rows, targets), base values included.
        trees: Of trees: the attributes of the TreeEnsemble, by name.
        linear: Of a linear function: weights of shape (features, targets), and intercepts of shape (targets,).
    """

    matrix: str
    raw: str = ""
    trees: Mapping[str, Array] = field(default_factory=dict)
    linear: tuple[Array, Array] | None = None


@dataclass(frozen=True, slots=True)
class _Node:
    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Sequence[memoryview]


def read_head(content: bytes, name: str = "model.onnx") -> Head | None:
    """Return the model in a graph that passed `onnx_file.check_onnx`; `None` if there is none, or several.

    Raises:
        Corrupt: The file is damaged.
    """
    nodes, constants = _graph(content, name)
    trees = [node for node in nodes if node.operator.startswith(_TREES)]
    linear = [node for node in nodes if node.operator in _LINEAR]
    if len(trees) == 1 and trees[0].operator == _TREES:
        (node,) = trees
        found = {key: value for key, value in _attributes(node, name).items() if value is not None}
        return Head(node.inputs[0], raw=_shifted(node.outputs[0], nodes, constants), trees=found)
    if len(linear) == 1 and not trees:
        return _linear(linear[0], nodes, constants, name)
    return None


def with_outputs(content: bytes, tensors: Sequence[str]) -> bytes:
    """Return the model with inner tensors among its outputs; the runtime infers their types."""
    found = []
    for number, _, value in fields(memoryview(content), "Model", "model.onnx"):
        if number == 7 and isinstance(value, memoryview):
            # A ValueInfo with a name alone, before the graph's own outputs: the last one stays the answer.
            added = b"".join(_field(12, _field(1, each.encode())) for each in tensors)
            found.append(_field(7, added + bytes(value)))
        elif isinstance(value, int):
            found.append(_varint(number << 3) + _varint(value))
        else:
            found.append(_field(number, value.encode() if isinstance(value, str) else bytes(value)))
    return b"".join(found)


def _graph(content: bytes, name: str) -> tuple[list[_Node], dict[str, memoryview]]:
    """Return the nodes of the graph, and its constants by name."""
    nodes: list[_Node] = []
    constants: dict[str, memoryview] = {}
    for number, _, graph in fields(memoryview(content), "Model", name):
        if number != 7 or not isinstance(graph, memoryview):
            continue
        for place, _, value in fields(graph, "Graph", name):
            if not isinstance(value, memoryview):
                continue
            if place == 1:
                nodes.append(_node(value, name))
            elif place == 5:
                constants[_text_of(value, 8, "Tensor", name)] = value
    return nodes, constants


def _node(message: memoryview, name: str) -> _Node:
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: list[memoryview] = []
    operator = ""
    for number, _, value in fields(message, "Node", name):
        if number == 1:
            inputs.append(str(value))
        elif number == 2:
            outputs.append(str(value))
        elif number == 4:
            operator = str(value)
        elif number == 5 and isinstance(value, memoryview):
            attributes.append(value)
    return _Node(operator, inputs, outputs, attributes)


def _attributes(node: _Node, name: str) -> dict[str, Any]:
    """Return the numbers in a node's attributes: arrays, or single numbers."""
    found: dict[str, Any] = {}
    for each in node.attributes:
        one: dict[int, Value] = {number: value for number, _, value in fields(each, "Attribute", name)}
        key = str(one[1])
        tensor = one.get(5)
        if isinstance(tensor, memoryview):
            found[key] = _array(tensor, name)
        elif 3 in one:
            found[key] = one[3]
        elif isinstance(one.get(2), memoryview):
            found[key] = float(np.frombuffer(one[2], "<f4")[0])  # type: ignore[arg-type]
        elif 4 in one:
            found[key] = bytes(one[4]).decode()  # type: ignore[arg-type]
        else:
            found[key] = numbers(each, name)
    return found


def _array(tensor: memoryview, name: str) -> Array:
    dims: list[int] = []
    kind, parts = 0, []
    for number, _, value in fields(tensor, "Tensor", name):
        if isinstance(value, int):
            dims += [value] if number == 1 else []
            kind = value if number == 2 else kind
        elif isinstance(value, memoryview):
            if number == 1:
                dims += varints(value).tolist()
            elif number == 9 and kind in _RAW_TYPES:
                parts.append(np.frombuffer(value, _RAW_TYPES[kind]))
            elif number in _LISTS:
                parts.append(np.frombuffer(value, _LISTS[number]))
    found = np.concatenate(parts) if parts else np.zeros(0)
    if not parts or found.size != int(np.prod(dims)):
        raise Corrupt(f"{name} has a constant of {found.size} numbers for the shape {dims}.")
    return found.reshape(dims)


def _linear(node: _Node, nodes: Sequence[_Node], constants: Mapping[str, memoryview], name: str) -> Head | None:
    said = _attributes(node, name)
    if node.operator.startswith("Linear"):
        weights, intercepts = said["coefficients"].astype(np.float64), said.get("intercepts")
        targets = 1 if intercepts is None else len(intercepts)
        matrix = weights.reshape(targets, -1).T
        base = np.zeros(targets) if intercepts is None else intercepts.astype(np.float64)
        return Head(node.inputs[0], linear=(matrix, base))
    if len(node.inputs) < 2 or node.inputs[1] not in constants or said.get("transA"):
        return None
    if said.get("alpha", 1.0) != 1.0 or said.get("beta", 1.0) != 1.0:
        return None
    matrix = _array(constants[node.inputs[1]], name).astype(np.float64)
    matrix = matrix.T if said.get("transB") else matrix
    matrix = matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix
    added = node.inputs[2] if len(node.inputs) > 2 else _addend(node.outputs[0], nodes, constants)
    base = _array(constants[added], name).astype(np.float64).reshape(-1) if added in constants else np.zeros(1)
    return Head(node.inputs[0], linear=(matrix, np.broadcast_to(base, matrix.shape[1:])))


def _shifted(tensor: str, nodes: Sequence[_Node], constants: Mapping[str, memoryview]) -> str:
    """Return the tensor after a constant was added to `tensor`, else `tensor`."""
    for node in nodes:
        if node.operator == "Add" and tensor in node.inputs and any(each in constants for each in node.inputs):
            return node.outputs[0]
    return tensor


def _addend(tensor: str, nodes: Sequence[_Node], constants: Mapping[str, memoryview]) -> str:
    """Return the name of the constant that is added to `tensor`; empty if there is none."""
    for node in nodes:
        if node.operator == "Add" and tensor in node.inputs:
            return next((each for each in node.inputs if each in constants), "")
    return ""


def _text_of(message: memoryview, number: int, kind: str, name: str) -> str:
    return next((str(value) for place, _, value in fields(message, kind, name) if place == number), "")


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
