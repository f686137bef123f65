"""A network that is quantised as it runs: the scale of a batch is that of its largest row, so a row's answer is not its
own."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.serving import FEATURES, WEIGHTS, bundle, model
from mainspring.core.errors import Corrupt
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane import runtime

COLUMNS = {name: values for name, (_, values) in FEATURES.items()}


def dynamic_int8() -> bytes:
    """Return the kit's model with its product in INT8, the scale of what it is given found as it is given."""
    made = onnx.load_from_string(model())
    graph = made.graph
    place = next(at for at, node in enumerate(graph.node) if node.op_type == "Gemm")
    scale = np.float32(np.abs(WEIGHTS).max() / 127)
    quantised = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["x_int", "x_scale", "x_zero"]),
        helper.make_node("MatMulInteger", ["x_int", "w_int", "x_zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["product_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["product_float", "scale"], ["logit"]),
    ]
    nodes = [*graph.node[:place], *quantised, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array((WEIGHTS.reshape(-1, 1) / scale).round().astype(np.int8), "w_int"))
    graph.initializer.append(numpy_helper.from_array(np.array(scale), "w_scale"))
    return bytes(made.SerializeToString())


def test_a_large_row_moves_its_neighbours_and_so_the_bundle_is_refused() -> None:
    content = dynamic_int8()
    executor = OnnxExecutor(bundle(model_onnx=content))
    beside = {name: [values[0], 2000 if name == "Carrier.delay_1h" else values[1]] for name, values in COLUMNS.items()}
    moved = executor.predict(COLUMNS, 2)["probability"][0] - executor.predict(beside, 2)["probability"][0]
    assert abs(moved) > 0.01
    answers = executor.predict(COLUMNS, 2)["probability"].tolist()
    rows = json.dumps({"inputs": COLUMNS, "outputs": {"probability": answers}}).encode()
    with pytest.raises(Corrupt, match="alone and in a batch"):
        runtime.load(bundle(model_onnx=content, golden_json=rows), MemoryOnlineStore(), OnnxExecutor)
