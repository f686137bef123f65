"""What the bytes of a converted model depend on: on the training alone."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from mainspring.training.flavours.graph import content_of


def model(name: str, domains: list[str]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], name, [value], [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 1) for domain in domains])


def test_neither_the_name_of_a_graph_nor_the_order_of_operator_sets_changes_the_bytes() -> None:
    first = content_of(model("f3a0", ["", "ai.onnx.ml"]))
    assert content_of(model("77c2", ["ai.onnx.ml", ""])) == first
    assert content_of(model("77c2", ["ai.onnx.ml"])) != first
    assert [each.domain for each in onnx.load_from_string(first).opset_import] == ["", "ai.onnx.ml"]
