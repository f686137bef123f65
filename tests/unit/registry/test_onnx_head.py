"""The last model of an ONNX graph, read from its bytes, equals what the onnx library reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from kit.depth import examples
from kit.explained import explained
from kit.models import onnx_model
from mainspring.registry.onnx_file import check_onnx
from mainspring.registry.onnx_head import read_head, with_outputs
from mainspring.registry.onnx_wire import numbers, varints

Ints = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=80)


@settings(max_examples=examples(gate=60, deep=500), deadline=None)
@given(Ints)
def test_ints_of_an_attribute(values: list[int]) -> None:
    content = helper.make_attribute("a", values).SerializeToString()
    found = numbers(memoryview(content), "x")
    assert found is not None
    assert found.tolist() == values
    packed = numpy_helper.from_array(np.array(values), "t")
    packed.ClearField("raw_data")
    packed.int64_data.extend(values)
    field = packed.SerializeToString()
    start = field.index(b"\x3a")  # field 7, packed
    size = int(varints(field[start + 1 :])[0])
    assert varints(field[len(field) - size - 3 : len(field) - 3]).tolist() == values


@settings(max_examples=examples(gate=30, deep=300), deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=80))
def test_floats_of_an_attribute(values: list[float]) -> None:
    content = helper.make_attribute("a", values).SerializeToString()
    found = numbers(memoryview(content), "x")
    assert found is not None
    assert found.tolist() == values


@pytest.mark.parametrize("case", ["texts", "several classes"])
def test_trees_are_those_that_the_onnx_library_reads(case: str) -> None:
    content = explained("sklearn_trees", case).bundle.files["model.onnx"]
    head = read_head(content)
    assert head is not None
    (node,) = [each for each in onnx.load_from_string(content).graph.node if each.op_type == "TreeEnsemble"]
    assert head.matrix == node.input[0]
    for attribute in node.attribute:
        value: Any = helper.get_attribute_value(attribute)
        expected = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        np.testing.assert_array_equal(head.trees[attribute.name], expected)


def test_inner_tensors_become_outputs_of_a_model_that_passes_the_check() -> None:
    made = explained("sklearn_trees", "texts")
    content = made.bundle.files["model.onnx"]
    head = read_head(content)
    assert head is not None
    widened = with_outputs(content, [head.matrix, head.raw])
    check_onnx(widened)
    session = ort.InferenceSession(widened, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == [head.matrix, head.raw, "probability"]


W = np.arange(6, dtype=np.float32).reshape(3, 2)
X, Y = ("x", "FP32", [None, 3]), ("y", "FP32", [None, 2])


def linear(*nodes: Any, **constants: Any) -> Any:
    head = read_head(onnx_model(nodes, [X], [Y], **constants))
    assert head is not None
    assert head.linear is not None
    return head.linear


def test_linear_functions_as_graphs_write_them() -> None:
    b = np.array([5.0, 7.0], np.float32)
    for found in (
        linear(helper.make_node("Gemm", ["x", "w", "b"], ["y"]), w=W, b=b),
        linear(helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1), w=W.T.copy(), b=b),
        linear(helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"]), w=W, b=b),
        linear(helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["b", "m"], ["y"]), w=W, b=b),
    ):
        np.testing.assert_array_equal(found[0], W)
        np.testing.assert_array_equal(found[1], b)
    np.testing.assert_array_equal(linear(helper.make_node("MatMul", ["x", "w"], ["y"]), w=W)[1], [0.0, 0.0])


def test_other_graphs_have_no_head() -> None:
    scaled = helper.make_node("Gemm", ["x", "w"], ["y"], alpha=2.0)
    assert read_head(onnx_model([scaled], [X], [Y], w=W)) is None
    twice = [helper.make_node("MatMul", ["x", "v"], ["m"]), helper.make_node("MatMul", ["m", "w"], ["y"])]
    assert read_head(onnx_model(twice, [X], [Y], v=np.eye(3, dtype=np.float32), w=W)) is None
    none = helper.make_node("Identity", ["x"], ["y"])
    assert read_head(onnx_model([none], [X], [("y", "FP32", [None, 3])])) is None
