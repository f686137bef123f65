"""Building of ONNX graphs: nodes added to skl2onnx's, and the names of a finished graph's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainspring.core.errors import NotConvertible
from mainspring.training.frames import Array


class Nodes:
    """Builder of one operator's part of the graph, with unique names.

    Args:
        scope, container: The arguments that skl2onnx passes to a converter.
    """

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def add(self, operator: str, inputs: list[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output: `output`, or a new name."""
        output = output or self._scope.get_unique_variable_name(f"own_{operator.lower()}")
        self._container.add_node(
            operator,
            inputs,
            output,
            op_domain=domain,
            op_version=1 if domain else None,
            name=self._scope.get_unique_operator_name(operator),
            **attributes,
        )
        return output

    def constant(self, values: Array) -> str:
        """Add an array and return its name."""
        from onnx import numpy_helper

        name: str = self._scope.get_unique_variable_name("own_constant")
        self._container.initializers.append(numpy_helper.from_array(values, name))
        return name


def name_inputs(model: Any, names: Sequence[str]) -> None:
    """Rename the graph's inputs, which are in the order of `names`, to those names: converters replace dots."""
    graph = model.graph
    if len(graph.input) != len(names):
        raise NotConvertible(f"The converted graph has {len(graph.input)} inputs for {len(names)} features.")
    renamed = {given.name: name for given, name in zip(graph.input, names, strict=True)}
    inner = {
        name: f"{name}__inner"
        for name in (*(output for node in graph.node for output in node.output), *(i.name for i in graph.initializer))
        if name in names
    }
    _rename(graph, {**inner, **renamed})


def _rename(graph: Any, names: dict[str, str]) -> None:
    for values in (graph.input, graph.output, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in graph.node:
        for references in (node.input, node.output):
            for position, name in enumerate(references):
                references[position] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def content_of(model: Any) -> bytes:
    """Serialise the model deterministically, so that the same training gives the same bytes.

    Converters give the graph a random name, and list the operator sets in the random order of a set of strings.
    """
    model.graph.name = "model"
    operators = sorted(model.opset_import, key=lambda each: str(each.domain))
    del model.opset_import[:]
    model.opset_import.extend(operators)
    return bytes(model.SerializeToString(deterministic=True))


def columns_first(model: Any, names: Sequence[str], kind: int) -> None:
    """Replace the graph's only input, a matrix, by one input per column in `names`, each of shape (rows, 1).

    Args:
        kind: The ONNX element type of the matrix.
    """
    from onnx import helper

    graph = model.graph
    (matrix,) = (tensor.name for tensor in graph.input)
    taken = {output for node in graph.node for output in node.output} | {
        constant.name for constant in graph.initializer
    }
    _rename(graph, {name: f"{name}__inner" for name in taken & set(names)})
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(name, kind, [None, 1]) for name in names)
    if matrix in names:
        _rename_references(graph, matrix, f"{matrix}__matrix")
        matrix = f"{matrix}__matrix"
    graph.node.insert(0, helper.make_node("Concat", list(names), [matrix], axis=1))


def _rename_references(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new


def without_notes(model: Any) -> None:
    """Remove an exporter's annotations: paths, source lines, docstrings."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    graph.doc_string = model.doc_string = ""
    graph.name = "model"
    for each in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""


def name_outputs(
    model: Any, answer: str, columns: Sequence[int], names: Sequence[str], *, double: bool = False
) -> None:
    """Make `names` the graph's outputs, each of shape (rows,): columns of its tensor `answer`, shape (rows, n).

    Args:
        double: Whether the outputs are float64; else float32.
    """
    from onnx import TensorProto, helper

    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT

    graph = model.graph
    clash = {each.name for each in graph.input} & set(names)
    if clash:
        raise NotConvertible(f"{sorted(clash)} are names of features and of classes.", fix="rename the classes.")
    clash = {output for node in graph.node for output in node.output} & set(names)
    if clash:
        _rename(graph, {name: f"{name}__inner" for name in clash})
        answer = f"{answer}__inner" if answer in clash else answer
    del graph.output[:]
    graph.initializer.append(helper.make_tensor("__flat", TensorProto.INT64, [1], [-1]))
    for position, (column, name) in enumerate(zip(columns, names, strict=True)):
        index, picked, flat = f"__index{position}", f"__picked{position}", f"__flat{position}"
        graph.initializer.append(helper.make_tensor(index, TensorProto.INT64, [1], [column]))
        graph.node.append(helper.make_node("Gather", [answer, index], [picked], axis=1))
        graph.node.append(helper.make_node("Reshape", [picked, "__flat"], [flat]))
        # a cast, because converters may declare float64 where the runtime returns float32, and vice versa
        graph.node.append(helper.make_node("Cast", [flat], [name], to=kind))
        graph.output.append(helper.make_tensor_value_info(name, kind, [None]))
    _prune(graph)


def _prune(graph: Any) -> None:
    """Remove nodes and constants that no output needs, such as those of the predicted label."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)


def constant_model(inputs: Sequence[tuple[str, int]], values: Sequence[float], names: Sequence[str]) -> Any:
    """Return an ONNX model whose outputs are always `values`.

    Args:
        inputs: (name, ONNX element type) of each input.
    """
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Shape", [inputs[0][0]], ["__shape"]),
        helper.make_node("Gather", ["__shape", "__zero"], ["__rows"], axis=0),
    ]
    constants = [helper.make_tensor("__zero", TensorProto.INT64, [1], [0])]
    for position, (value, name) in enumerate(zip(values, names, strict=True)):
        constants.append(helper.make_tensor(f"__value{position}", TensorProto.FLOAT, [1], [value]))
        nodes.append(helper.make_node("Expand", [f"__value{position}", "__rows"], [name]))
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in names],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
