"""Speed of this machine, measured in some seconds with ONNX Runtime's kernels and Python itself."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import MissingExtra
from mainspring.serving.sizing.speed import Rate, Speed
from mainspring.serving.sizing.work import FP32, INT8

HEIGHTS, WIDTHS = (1, 8, 64), (64, 256, 1024)
_CALLS, _AGAIN = 5, 7
_LONG_S = 0.004  # of one reading
_CHAIN, _WIDE = 40, 16_384
_SHORT = 16  # length of products whose outputs cost more than their operations
_STEPS = 50_000
_TOGETHER_S = 0.25


def probe(name: str = "", *, together: bool = True) -> Speed:
    """Measure this machine. Other work on it makes it look slower: the fastest of several readings counts.

    Args:
        together: Whether all cores are measured at once, too.

    Raises:
        MissingExtra: `onnx` is not installed.
    """
    import psutil

    empty, full = (_fastest(_chain(_CHAIN), np.ones((1, width), np.float32)) for width in (1, _WIDE))
    node = (empty - _fastest(_chain(1), np.ones((1, 1), np.float32))) / (_CHAIN - 1)
    call = max(0.0, empty - _CHAIN * node)
    outputs = {
        (kind, rows): _net(_fastest(*_product(kind, rows, _SHORT, WIDTHS[-1])), call) / (rows * WIDTHS[-1])
        for kind in (FP32, INT8)
        for rows in HEIGHTS
    }
    rates = [
        Rate(kind, rows, width, 2e-9 * rows * width * width / _net(took, call + rows * width * outputs[kind, rows]))
        for kind in (FP32, INT8)
        for rows in HEIGHTS
        for width in WIDTHS
        for took in [_fastest(*_product(kind, rows, width, width))]
    ]
    return Speed(
        name=name or platform.node() or "this machine",
        processor=_processor(),
        cores=float(usable_cores()),
        memory_gib=psutil.virtual_memory().total / 2**30,
        scalar=_STEPS / min(_stepped() for _ in range(_AGAIN)) / 1e6,
        rates=rates,
        outputs=[Rate(kind, rows, WIDTHS[-1], 1e-9 / each) for (kind, rows), each in outputs.items()],
        moved_gb_s=8e-9 * _WIDE * _CHAIN / max(full - empty, 1e-9),
        node_us=max(node, 1e-9) * 1e6,
        together=_together() if together else {1: 1.0},
    )


def _fastest(session: Any, values: np.ndarray[Any, Any]) -> float:
    """Return the seconds of a call, with the input bound as it is."""
    feeds = {"x": values}
    session.run(None, feeds)
    begun = time.perf_counter()
    for _ in range(_CALLS):
        session.run(None, feeds)
    calls = max(1, int(_LONG_S * _CALLS / (time.perf_counter() - begun)))
    found = []
    for _ in range(_AGAIN):
        begun = time.perf_counter()
        for _ in range(calls):
            session.run(None, feeds)
        found.append((time.perf_counter() - begun) / calls)
    return min(found)


def _product(kind: str, rows: int, inner: int, outer: int) -> tuple[Any, np.ndarray[Any, Any]]:
    """Return a session with one product, and its input; of 8 bits as `mainspring optimize` makes it."""
    onnx, helper = _onnx()
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(inner, outer)).astype(np.float32)
    constants: dict[str, Any]
    if kind == FP32:
        nodes = [helper.make_node("Gemm", ["x", "w", "bias"], ["y"])]
        constants = {"w": weights, "bias": np.zeros(outer, np.float32)}
        return _session(nodes, constants, onnx.TensorProto.FLOAT), np.ones((rows, inner), np.float32)
    constants = {
        "w": (30 * weights).clip(-60, 60).astype(np.int8), "scale": np.float32(0.02), "zero": np.uint8(128),
        "scales": np.full(outer, 0.02, np.float32), "zeros": np.zeros(outer, np.int8),
        "bias": np.zeros(outer, np.int32), "both": np.full(outer, 0.0004, np.float32),
        "none": np.zeros(outer, np.int32),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["b"], axis=1),
        helper.make_node("DequantizeLinear", ["bias", "both", "none"], ["c"], axis=0),
        helper.make_node("Gemm", ["a", "b", "c"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "scale", "zero"], ["y"]),
    ]
    return _session(nodes, constants, onnx.TensorProto.UINT8), np.full((rows, inner), 130, np.uint8)


def _net(seconds: float, beside: float) -> float:
    """Return the seconds of a product without others."""
    return max(seconds - beside, 0.3 * seconds)


def _chain(count: int) -> Any:
    """Return a session with operators one after the other, that no optimiser merges."""
    onnx, helper = _onnx()
    names = ["x", *(f"v{place}" for place in range(count - 1)), "y"]
    nodes = [
        helper.make_node("Relu" if place % 2 else "Neg", [names[place]], [names[place + 1]]) for place in range(count)
    ]
    return _session(nodes, {}, onnx.TensorProto.FLOAT)


def _session(nodes: list[Any], constants: dict[str, Any], kind: int) -> Any:
    import onnxruntime as ort

    onnx, helper = _onnx()
    ends = [helper.make_tensor_value_info(name, kind, ["rows", f"{name} wide"]) for name in ("x", "y")]
    held = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _onnx() -> tuple[Any, Any]:
    try:
        import onnx
        from onnx import helper
    except ModuleNotFoundError as error:
        raise MissingExtra("Measuring a machine", "sklearn") from error
    return onnx, helper


def _stepped() -> float:
    """Return the seconds of steps of the interpreter, as requests have them: calls, dictionaries and texts."""
    begun, found = time.perf_counter(), dict[str, int]()
    for step in range(_STEPS):
        key = str(step & 255)
        found[key] = found.get(key, 0) + len(key)
    return time.perf_counter() - begun


def _together() -> dict[int, float]:
    """Return cores -> products that they compute at once, as a multiple of one core's."""
    sessions = [_product(FP32, 64, 512, 512) for _ in range(usable_cores())]
    found = {count: _at_once(sessions[:count]) for count in _counts(len(sessions))}
    return {count: min(each / found[1], float(count)) for count, each in found.items()}


def _counts(cores: int) -> Iterator[int]:
    count = 1
    while count < cores:
        yield count
        count *= 2
    yield cores


def _at_once(sessions: list[tuple[Any, np.ndarray[Any, Any]]]) -> float:
    """Return the calls a second of sessions in threads, which leave the interpreter while they compute."""
    best = 0.0
    for _ in range(3):
        counts, end = [0] * len(sessions), time.perf_counter() + _TOGETHER_S
        works = [
            threading.Thread(target=_until, args=(end, counts, place, *each)) for place, each in enumerate(sessions)
        ]
        for each in works:
            each.start()
        for each in works:
            each.join()
        best = max(best, sum(counts) / _TOGETHER_S)
    return best


def _until(end: float, counts: list[int], place: int, session: Any, values: np.ndarray[Any, Any]) -> None:
    feeds, clock = {"x": values}, time.perf_counter
    run: Callable[..., Any] = session.run
    while clock() < end:
        run(None, feeds)
        counts[place] += 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
