"""Operators whose cost a request's values decide are found, and those whose cost shapes decide are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mainspring.registry.onnx_cost import unbounded_operator

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def model(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> bytes:
    """Return a model of `x` (floats), `n` (one integer), `t` (texts) and the constant `two`."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("t", TensorProto.STRING, [None]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array([2], np.int64), "two")],
    )
    return helper.make_model(graph, opset_imports=OPSETS, functions=functions).SerializeToString()


def node(operator: str, *inputs: str, to: str = "y", **more: object) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [to], **more)


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "inner", [], [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)])


def branches(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    return node("If", "c", then_branch=graph(*nodes), else_branch=graph(node("Identity", "x", to="i")))


def function(*nodes: onnx.NodeProto, called: str = "f", takes: tuple[str, ...] = ("a", "s")) -> onnx.FunctionProto:
    return helper.make_function("own", called, takes, ["b"], list(nodes), OPSETS)


def overloaded(given: Any, overload: str) -> Any:
    given.overload = overload
    return given


EXPANDS = function(node("Expand", "a", "s", to="b"))


@pytest.mark.parametrize(
    ("content", "operator"),
    [
        (model(node("Loop", "n", "", body=graph())), "Loop"),
        (model(node("Loop", "two", "", body=graph())), "Loop"),
        (model(node("Scan", "x", body=graph(), num_scan_inputs=1)), "Scan"),
        (model(node("ConstantOfShape", "n")), "ConstantOfShape"),
        (model(node("Range", "two", "n", "two")), "Range"),
        (model(node("Cast", "x", to="k"), node("Add", "k", "two", to="l"), node("Tile", "x", "l")), "Tile"),
        (model(node("Resize", "x", "", "", "n")), "Resize"),
        (model(branches(node("Expand", "x", "n", to="i"))), "Expand"),
        (model(branches(branches(node("Loop", "n", "", body=graph())))), "Loop"),
        (model(branches(node("Identity", "n", to="i")), node("Expand", "x", "y")), "Expand"),
        (model(node("f", "x", "n", domain="own"), functions=(EXPANDS,)), "Expand"),
        (
            model(
                node("g", "x", "n", domain="own"),
                functions=(function(node("f", "a", "s", to="b", domain="own"), called="g"), EXPANDS),
            ),
            "Expand",
        ),
        (model(node("f", "x", "n", domain="own"), functions=(function(node("f", "a", "s", domain="own")),)), "f"),
        (model(node("StringSplit", "t")), "StringSplit"),
        (model(node("f", "x", "n", domain="own"), functions=(function(node("If", "a", to="b")),)), "If"),
        # Runtimes sort nodes before they run them.
        (model(node("Expand", "x", "k"), node("Identity", "n", to="k")), "Expand"),
        (model(branches(node("Expand", "x", "k", to="i")), node("Identity", "n", to="k")), "Expand"),
        # They tell functions of one name by their overload, and prefer their own operators to functions.
        (
            model(
                overloaded(node("f", "x", "n", domain="own"), "wide"),
                functions=(
                    overloaded(function(node("Expand", "a", "s", to="b")), "wide"),
                    function(node("Add", "a", "s", to="b")),
                ),
            ),
            "Expand",
        ),
        (
            model(
                node("Expand", "x", "n"),
                functions=(helper.make_function("", "Expand", ["a", "s"], ["b"], [node("Relu", "a", to="b")], OPSETS),),
            ),
            "Expand",
        ),
        (model(node("f", "x", "two", domain="own", body=graph()), functions=(EXPANDS,)), "f"),
    ],
)
def test_what_a_value_decides_is_found(content: bytes, operator: str) -> None:
    assert unbounded_operator(content) == operator


@pytest.mark.parametrize(
    "content",
    [
        model(node("Relu", "x")),
        model(node("Expand", "x", "two")),
        model(node("Shape", "x", to="s"), node("Concat", "s", "two", to="k", axis=0), node("Expand", "x", "k")),
        model(node("Shape", "x", to="s"), node("ConstantOfShape", "s")),
        model(branches(node("Relu", "x", to="i"))),
        model(node("f", "x", "two", domain="own"), functions=(EXPANDS,)),
        model(node("Expand", "n", "two")),
        model(helper.make_node("Dropout", ["x"], ["d", ""]), node("Resize", "d", "", "two")),
    ],
)
def test_what_shapes_decide_is_not(content: bytes) -> None:
    assert unbounded_operator(content) is None


def test_functions_that_call_each_other_twice_are_walked_once() -> None:
    """Each of 60 calls the next one twice: walked call by call this would not end."""
    functions = [
        function(
            node(f"f{n + 1}", "a", "s", to="c", domain="own"),
            node(f"f{n + 1}", "c", "s", to="b", domain="own"),
            called=f"f{n}",
        )
        for n in range(60)
    ]
    last = function(node("Add", "a", "s", to="b"), called="f60")
    assert unbounded_operator(model(node("f0", "x", "n", domain="own"), functions=(*functions, last))) is None


def test_a_long_chain_of_functions_counts_as_unbounded() -> None:
    functions = [function(node(f"f{n + 1}", "a", "s", to="b", domain="own"), called=f"f{n}") for n in range(2000)]
    last = function(node("Add", "a", "s", to="b"), called="f2000")
    assert unbounded_operator(model(node("f0", "x", "n", domain="own"), functions=(*functions, last))) is not None
