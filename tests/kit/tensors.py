"""Small models of tensors, as signed bundles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.security.signing import SigningKey
from mainspring.serving.protocol.tensor import DTYPES

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
WIDE = 4


def echo(key: SigningKey) -> Bundle:
    """Return a model that gives back, as `out_fp32` and so on, an input a datatype, `in_fp32`, of shape (rows, 2)."""
    nodes, takes, gives, golden = [], [], [], {"inputs": {}, "outputs": {}}
    for datatype, kind in TYPES.items():
        name = datatype.lower()
        nodes.append(helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]))
        takes.append(helper.make_tensor_value_info(f"in_{name}", kind, [None, 2]))
        gives.append(helper.make_tensor_value_info(f"out_{name}", kind, [None, 2]))
        rows = [["a", "b"]] if datatype == "BYTES" else np.zeros((1, 2), DTYPES[datatype]).tolist()
        golden["inputs"][f"in_{name}"] = golden["outputs"][f"out_{name}"] = rows
    specs = [(each.lower(), each) for each in TYPES]
    return sealed(
        "echo",
        helper.make_graph(nodes, "echo", takes, gives),
        [TensorSpec(f"in_{name}", datatype, (-1, 2)) for name, datatype in specs],
        [TensorSpec(f"out_{name}", datatype, (-1, 2)) for name, datatype in specs],
        golden,
        key,
    )


def sums(key: SigningKey, *, slow: bool = False) -> Bundle:
    """Return a model that adds up `x`, FP32 of shape (rows, WIDE), to `sum`, shape (rows, 1). `slow`: tens of
    milliseconds a row."""
    ones = numpy_helper.from_array(np.ones((WIDE, 1), np.float32), "ones")
    nodes, constants, last = [helper.make_node("MatMul", ["x", "ones"], ["sum"])], [ones], "sum"
    if slow:
        size = 2048
        constants += [
            numpy_helper.from_array(np.zeros((1, size), np.float32), "wide"),
            numpy_helper.from_array(np.zeros((size, size), np.float32), "work"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ]
        nodes = [
            helper.make_node("MatMul", ["x", "ones"], ["short"]),
            helper.make_node("Add", ["short", "wide"], ["w0"]),
        ]
        nodes += [helper.make_node("MatMul", [f"w{turn}", "work"], [f"w{turn + 1}"]) for turn in range(16)]
        nodes += [
            helper.make_node("ReduceSum", ["w16", "axis"], ["nothing"], keepdims=1),
            helper.make_node("Add", ["short", "nothing"], ["sum"]),
        ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, 1])],
        constants,
    )
    golden = {"inputs": {"x": [[1.0, 2.0, 3.0, 4.0], [0.0] * 4]}, "outputs": {"sum": [[10.0], [0.0]]}}
    takes, gives = [TensorSpec("x", "FP32", (-1, WIDE))], [TensorSpec("sum", "FP32", (-1, 1))]
    return sealed("sums", graph, takes, gives, golden, key)


def ragged(key: SigningKey) -> Bundle:
    """Return a model that adds up `x`, FP32 of shape (rows, any), to `sum`, shape (rows, 1), and gives back `x`."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
            helper.make_node("Identity", ["x"], ["again"]),
        ],
        "ragged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("again", TensorProto.FLOAT, [None, None]),
        ],
        [numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    golden = {"inputs": {"x": [[1.0, 2.0]]}, "outputs": {"sum": [[3.0]], "again": [[1.0, 2.0]]}}
    gives = [TensorSpec("sum", "FP32", (-1, 1)), TensorSpec("again", "FP32", (-1, -1))]
    return sealed("ragged", graph, [TensorSpec("x", "FP32", (-1, -1))], gives, golden, key)


def counted(key: SigningKey) -> Bundle:
    """Return a model that costs what its input `n`, INT64 of shape (rows, 1), says: a loop of so many turns, and
    nothing of it in `y`, FP32 of shape (rows, 1), which is `n`."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Add", ["sum", "step"], ["more"])],
        "turn",
        [
            scalar("turn", TensorProto.INT64, []),
            scalar("on", TensorProto.BOOL, []),
            scalar("sum", TensorProto.FLOAT, []),
        ],
        [scalar("still_on", TensorProto.BOOL, []), scalar("more", TensorProto.FLOAT, [])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "nought"], ["sum"], body=body),
    ]
    return _costly(key, "counted", nodes, [numpy_helper.from_array(np.array(0, np.float32), "step")])


def allocated(key: SigningKey) -> Bundle:
    """Return the same as `counted`, which allocates `n` floats instead."""
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["most"], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "axis"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
    ]
    return _costly(key, "allocated", nodes, [numpy_helper.from_array(np.array([0], np.int64), "axis")])


def _costly(key: SigningKey, name: str, nodes: list[Any], constants: list[Any]) -> Bundle:
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("Cast", ["n"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sum", "nought"], ["nothing"]),
            helper.make_node("Add", ["float", "nothing"], ["y"]),
        ],
        name,
        [helper.make_tensor_value_info("n", TensorProto.INT64, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array(0, np.float32), "nought"), *constants],
    )
    golden = {"inputs": {"n": [[1], [3]]}, "outputs": {"y": [[1.0], [3.0]]}}
    takes, gives = [TensorSpec("n", "INT64", (-1, 1))], [TensorSpec("y", "FP32", (-1, 1))]
    return sealed(name, graph, takes, gives, golden, key)


def network(key: SigningKey, inputs: int, outputs: int, hidden: int = 64) -> Bundle:
    """Return two layers from `x`, FP32 of shape (rows, inputs), to `y`, shape (rows, outputs)."""
    chance = np.random.default_rng(0)
    first = chance.normal(size=(inputs, hidden)).astype(np.float32)
    second = chance.normal(size=(hidden, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["inner"]),
            helper.make_node("Relu", ["inner"], ["bent"]),
            helper.make_node("MatMul", ["bent", "second"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    rows = np.eye(2, inputs, dtype=np.float32)
    golden = {"inputs": {"x": rows.tolist()}, "outputs": {"y": (np.maximum(rows @ first, 0) @ second).tolist()}}
    takes, gives = [TensorSpec("x", "FP32", (-1, inputs))], [TensorSpec("y", "FP32", (-1, outputs))]
    return sealed("network", graph, takes, gives, golden, key)


def sealed(
    name: str,
    graph: Any,
    takes: Sequence[TensorSpec],
    gives: Sequence[TensorSpec],
    golden: dict[str, Any],
    key: SigningKey,
) -> Bundle:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    manifest = Manifest(
        model=name,
        task="tensors",
        flavour="onnx",
        inputs=(),
        outputs=(),
        tensors=tuple(takes),
        output_tensors=tuple(gives),
        run_id="",
        dataset_commit="",
        features_digest="",
        code_version="",
        created_at=0,
    )
    files = {"model.onnx": model.SerializeToString(), "golden.json": json.dumps(golden).encode()}
    return seal(manifest, files, key)
