"""Kernels of ONNX Runtime as small graphs, and their time on one core."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import MissingExtra

Feeds = Mapping[str, npt.NDArray[Any]]
_LEAST, _MOST = 7, 400  # calls
_SCALE, _MIDDLE = np.float32(0.02), np.uint8(128)


def fastest(calls: Sequence[tuple[Any, Feeds]], *, seconds: float = 0.04) -> list[float]:
    """Return the seconds of the fastest call of each session. They take turns, so that other work on the machine meets
    all of them; the fastest is one that it left alone.

    Args:
        seconds: For each of them; 7 calls in any case, and 400 at most.
    """
    clock = time.perf_counter
    for session, feeds in calls:
        session.run(None, feeds)
    found, end, count = [inf] * len(calls), clock() + seconds * len(calls), 0
    while count < _LEAST or (count < _MOST and clock() < end):
        count += 1
        for place, (session, feeds) in enumerate(calls):
            begun = clock()
            session.run(None, feeds)
            found[place] = min(found[place], clock() - begun)
    return found


def product(inner: int, outer: int, operator: str = "Gemm") -> bytes:
    """Return the file of a product in FP32, from `x` to `y`.

    Args:
        operator: MatMul, or Gemm, which has a bias.
    """
    _, helper = _onnx()
    names = ["x", "w", "bias"] if operator == "Gemm" else ["x", "w"]
    constants = {"w": _weights(inner, outer), "bias": np.zeros(outer, np.float32)}
    return _file([helper.make_node(operator, names, ["y"])], {each: constants[each] for each in names[1:]})


def product_of_8_bits(inner: int, outer: int) -> bytes:
    """Return the file of a product with a bias from numbers of 8 bits to such."""
    return _file(*_in_int8("x", "y", inner, outer, "Gemm"), np.uint8)


def small_product(inner: int, outer: int, operator: str = "Gemm") -> bytes:
    """Return the file of a product of 8 bits from FP32 to FP32, with the scales that `mainspring optimize` puts around
    it."""
    _, helper = _onnx()
    nodes, constants = _in_int8("whole", "product", inner, outer, operator)
    around = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["whole"]),
        *nodes,
        helper.make_node("DequantizeLinear", ["product", "scale", "zero"], ["y"]),
    ]
    return _file(around, constants)


def chain(count: int) -> bytes:
    """Return the file of operators one after the other, that no optimiser merges."""
    _, helper = _onnx()
    names = ["x", *(f"v{place}" for place in range(count - 1)), "y"]
    return _file([
        helper.make_node("Relu" if place % 2 else "Neg", [names[place]], [names[place + 1]]) for place in range(count)
    ], {})  # fmt: skip


def _file(nodes: Sequence[Any], constants: Mapping[str, Any], kind: type = np.float32) -> bytes:
    """Return the file of a graph from `x` to `y`.

    Raises:
        MissingExtra: `onnx` is not installed.
    """
    onnx, helper = _onnx()
    of = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = [helper.make_tensor_value_info(name, of, ["rows", f"{name} wide"]) for name in ("x", "y")]
    held = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def opened(content: bytes, profile: str = "") -> Any:
    """Return a session of a model's file, on one thread.

    Args:
        profile: Path whose beginning that of the runtime's profile has; without it none is written.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _in_int8(made_of: str, made: str, inner: int, outer: int, operator: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the nodes of a product between numbers of 8 bits, as ONNX Runtime fuses them, and their constants."""
    _, helper = _onnx()
    constants = {
        "w": (30 * _weights(inner, outer)).clip(-60, 60).astype(np.int8), "scale": _SCALE, "zero": _MIDDLE,
        "scales": np.full(outer, _SCALE), "zeros": np.zeros(outer, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", [made_of, "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["b"], axis=1),
    ]
    names = ["a", "b"]
    if operator == "Gemm":
        names.append("c")
        none = np.zeros(outer, np.int32)
        constants |= {"bias": none, "both": np.full(outer, _SCALE * _SCALE), "none": none}
        nodes.append(helper.make_node("DequantizeLinear", ["bias", "both", "none"], ["c"], axis=0))
    nodes += [
        helper.make_node(operator, names, ["d"]),
        helper.make_node("QuantizeLinear", ["d", "scale", "zero"], [made]),
    ]
    return nodes, constants


def _weights(inner: int, outer: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(inner, outer)).astype(np.float32)


def _onnx() -> tuple[Any, Any]:
    try:
        import onnx
        from onnx import helper
    except ModuleNotFoundError as error:
        raise MissingExtra("Measuring a machine", "sklearn") from error
    return onnx, helper
