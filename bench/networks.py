"""Networks as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np


def onnx_mlp(path: Path, widths: Sequence[int], seed: int = 0) -> None:
    """Write a dense network with ReLU between its layers: `x` of shape (rows, widths[0]) to `y`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    chance = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for number, (into, out) in enumerate(pairwise(widths)):
        final = number == len(widths) - 2
        name = "y" if final else f"h{number}"
        matrix = chance.normal(0, into**-0.5, (into, out)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        weights.append(numpy_helper.from_array(np.zeros(out, np.float32), f"b{number}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [name if final else f"g{number}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"g{number}"], [name]))
        last = name
    graph = helper.make_graph(
        nodes, "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", widths[-1]])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


def onnx_positions(path: Path, *, inputs: int = 64, positions: int = 128, width: int = 384) -> None:
    """Write a network that maps `x` of shape (rows, inputs) to `y` of shape (rows, 1), by layers at each position."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    chance = np.random.default_rng(0)
    shapes = [(inputs, width), (width, width), (width, inputs)]
    held = [numpy_helper.from_array(chance.normal(size=(positions, inputs)).astype(np.float32), "positions")]
    held += [
        numpy_helper.from_array(chance.normal(0, into**-0.5, (into, out)).astype(np.float32), f"w{place}")
        for place, (into, out) in enumerate(shapes)
    ]
    held += [numpy_helper.from_array(np.array(axes, np.int64), name) for name, axes in (("one", [1]), ("all", [1, 2]))]
    nodes = [helper.make_node("Unsqueeze", ["x", "one"], ["u"]), helper.make_node("Add", ["u", "positions"], ["h0"])]
    for place in range(len(shapes)):
        nodes.append(helper.make_node("MatMul", [f"h{place}", f"w{place}"], [f"g{place}"]))
        nodes.append(helper.make_node("Relu", [f"g{place}"], [f"h{place + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"h{len(shapes)}", "all"], ["m"], keepdims=0))
    nodes.append(helper.make_node("Unsqueeze", ["m", "one"], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", count])
        for name, count in (("x", inputs), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "positions", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
