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
from mainspring.serving.sizing.kernels import chain, fastest, opened, product, product_of_8_bits
from mainspring.serving.sizing.speed import Rate, Speed
from mainspring.serving.sizing.work import FP32, INT8

HEIGHTS, WIDTHS = (1, 8, 64), (64, 256, 1024)
_AGAIN = 7
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

    long, one = opened(chain(_CHAIN)), np.ones((1, 1), np.float32)
    empty, full, alone = fastest([
        (long, {"x": one}), (long, {"x": np.ones((1, _WIDE), np.float32)}), (opened(chain(1)), {"x": one})
    ])  # fmt: skip
    node = (empty - alone) / (_CHAIN - 1)
    call = max(0.0, empty - _CHAIN * node)
    outputs = {
        (kind, rows): _net(_product(kind, rows, _SHORT, WIDTHS[-1]), call) / (rows * WIDTHS[-1])
        for kind in (FP32, INT8)
        for rows in HEIGHTS
    }
    rates = [
        Rate(kind, rows, width, 2e-9 * rows * width * width / _net(
            _product(kind, rows, width, width), call + rows * width * outputs[kind, rows]
        ))
        for kind in (FP32, INT8)
        for rows in HEIGHTS
        for width in WIDTHS
    ]  # fmt: skip
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


def _product(kind: str, rows: int, inner: int, outer: int) -> float:
    """Return the seconds of a call of a product alone."""
    if kind == FP32:
        return fastest([(opened(product(inner, outer)), {"x": np.ones((rows, inner), np.float32)})])[0]
    return fastest([(opened(product_of_8_bits(inner, outer)), {"x": np.full((rows, inner), 130, np.uint8)})])[0]


def _net(seconds: float, beside: float) -> float:
    """Return the seconds of a product without others."""
    return max(seconds - beside, 0.3 * seconds)


def _stepped() -> float:
    """Return the seconds of steps of the interpreter, as requests have them: calls, dictionaries and texts."""
    begun, found = time.perf_counter(), dict[str, int]()
    for step in range(_STEPS):
        key = str(step & 255)
        found[key] = found.get(key, 0) + len(key)
    return time.perf_counter() - begun


def _together() -> dict[int, float]:
    """Return cores -> products that they compute at once, as a multiple of one core's."""
    values = np.ones((64, 512), np.float32)
    sessions = [(opened(product(512, 512)), values) for _ in range(usable_cores())]
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
