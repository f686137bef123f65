"""Cost analysis of an ONNX model: whether input values, not only input shapes, decide the time or memory of a call.

A loop whose count, or a tensor whose size, is a number in the request can cost a caller's choice of time or memory. The
walk propagates through the graph which tensors hold values of the request. Shapes, and tensors computed from them
alone, do not count: the size of a request is limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mainspring.registry.onnx_file import OPERATOR_DOMAINS
from mainspring.registry.onnx_wire import FieldKind, Value, fields

_REPEATS = frozenset({"Loop", "Scan", "SequenceMap"})  # they run a subgraph repeatedly
_SHAPES = frozenset({"Shape", "Size"})  # their outputs do not depend on input values

# Operator -> positions of the inputs whose values decide its output size or its running time.
_SIZED: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (1, 2),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "StringConcat": (0, 1),  # a text may double with each operator
    "StringSplit": (0,),  # every row is as wide as the row with the most parts
    "Tile": (1, 2),  # before version 6 also the axis
    "Upsample": (1,),
}


@dataclass
class _Node:
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    operator: str = ""
    domain: str = ""
    overload: str = ""
    graphs: list[memoryview] = field(default_factory=list)


_Key = tuple[str, str, str]  # of a function: its domain, name and overload


class _Unbounded(Exception):
    """Signals an operator whose cost depends on the request's values."""


def unbounded_operator(content: bytes, name: str = "model.onnx") -> str | None:
    """Return the first operator whose time or memory depends on the request's values, `None` if there is none.

    Args:
        content: An ONNX file that passed `onnx_file.check_onnx`.
    """
    walk = _Walk(name)
    graph = None
    try:
        for number, _, value in fields(memoryview(content), "Model", name):
            if isinstance(value, memoryview):
                if number == 7:
                    graph = value
                elif number == 25:
                    walk.add_function(value)
        if graph is not None:
            walk.graph(graph, ())
    except _Unbounded as found:
        return str(found)
    except RecursionError:
        return "a function with too many nested calls"
    return None


class _Walk:
    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: dict[_Key, memoryview] = {}
        self._known: dict[tuple[_Key, frozenset[int]], frozenset[int]] = {}
        self._open: set[_Key] = set()  # functions on the current call path, to detect recursion

    def add_function(self, message: memoryview) -> None:
        said = {number: str(value) for number, _, value in self._fields(message, "Function") if number in (1, 10, 13)}
        name, domain, overload = said.get(1, ""), said.get(10, ""), said.get(13, "")
        if domain in OPERATOR_DOMAINS:  # a runtime may prefer its own operator with that name
            raise _Unbounded(name)
        self._functions[domain, name, overload] = message

    def graph(self, message: memoryview, outer: Iterable[str]) -> bool:
        """Return whether an output of a graph depends on request values; the names in `outer` do."""
        tainted = set(outer)
        outputs: set[str] = set()
        nodes = []
        for number, _, value in self._fields(message, "Graph"):
            if isinstance(value, memoryview) and number == 1:
                nodes.append(self._node(value))
            elif isinstance(value, memoryview) and number in (11, 12):
                names = {str(text) for place, _, text in self._fields(value, "ValueInfo") if place == 1}
                (tainted if number == 11 else outputs).update(names)
        self._nodes(nodes, tainted)
        return not outputs.isdisjoint(tainted)

    def _nodes(self, nodes: Sequence[_Node], tainted: set[str]) -> None:
        # Runtimes sort nodes, so the file's order is arbitrary: an output counts as tainted until its node is visited.
        for node in nodes:
            tainted.update(node.outputs)
        for node in nodes:
            if not self._carries(node, tainted):
                tainted.difference_update(node.outputs)

    def _carries(self, node: _Node, tainted: set[str]) -> bool:
        """Return whether the outputs of a node depend on request values."""
        given = frozenset(place for place, each in enumerate(node.inputs) if each and each in tainted)
        key = (node.domain, node.operator, node.overload)
        own = self._functions.get(key)
        if own is not None:
            if node.graphs:  # a function may run the subgraphs in any way
                raise _Unbounded(node.operator)
            return bool(self._function(key, own, given))
        if node.operator in _REPEATS or given & set(_SIZED.get(node.operator, ())):
            raise _Unbounded(node.operator)
        if node.operator == "If" and len(node.graphs) != 2:  # a branch is an attribute of the function
            raise _Unbounded(node.operator)
        if node.operator in _SHAPES:
            return False
        inner = [self.graph(each, tainted) for each in node.graphs]
        return bool(given) or any(inner)

    def _function(self, key: _Key, message: memoryview, given: frozenset[int]) -> frozenset[int]:
        """Return the outputs that depend on request values if the inputs `given` do. Each case is analysed once."""
        if key in self._open:
            raise _Unbounded(key[1])
        if (key, given) not in self._known:
            self._open.add(key)
            inputs: list[str] = []
            outputs: list[str] = []
            nodes: list[_Node] = []
            for number, _, value in self._fields(message, "Function"):
                if number == 4:
                    inputs.append(str(value))
                elif number == 5:
                    outputs.append(str(value))
                elif number == 7 and isinstance(value, memoryview):
                    nodes.append(self._node(value))
            tainted = {each for place, each in enumerate(inputs) if place in given}
            self._nodes(nodes, tainted)
            self._open.remove(key)
            self._known[key, given] = frozenset(place for place, each in enumerate(outputs) if each in tainted)
        return self._known[key, given]

    def _node(self, message: memoryview) -> _Node:
        node = _Node()
        for number, each, value in self._fields(message, "Node"):
            if number == 1:
                node.inputs.append(str(value))
            elif number == 2:
                node.outputs.append(str(value))
            elif number == 4:
                node.operator = str(value)
            elif number == 7:
                node.domain = str(value)
            elif number == 8:
                node.overload = str(value)
            elif each.kind == "Attribute" and isinstance(value, memoryview):
                node.graphs += [
                    inner
                    for _, one, inner in self._fields(value, "Attribute")
                    if one.kind == "Graph" and isinstance(inner, memoryview)
                ]
        return node

    def _fields(self, message: memoryview, kind: str) -> Iterator[tuple[int, FieldKind, Value]]:
        return fields(message, kind, self._name)
