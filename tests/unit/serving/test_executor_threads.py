"""More threads only where they pay. The clock is the test's own: what is measured here is the choice."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.models import MLP_SPECS, mlp, sealed
from mainspring.serving.adapters import threads
from mainspring.serving.adapters.onnx import OnnxExecutor

ROWS = np.zeros((4, 4)).tolist()
GOLDEN = msgspec.json.encode({"inputs": {"x": ROWS}, "outputs": {}})
BUNDLE = sealed("onnx", {"model.onnx": mlp(), "golden.json": GOLDEN}, **MLP_SPECS)


class Taking:
    """An executor that takes so long on the test's clock."""

    def __init__(self, clock: list[int], count: int, took_us: float) -> None:
        self.clock, self.count, self.took_us, self.closed = clock, count, took_us, False

    def nullable(self, _name: str) -> bool:
        return False

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        # An array, as a lane has it: making one of lists is not the model's work, and takes longer than many models.
        assert (list(inputs), rows, inputs["x"].shape) == (["x"], 4, (4, 4))
        self.clock[0] += int(self.took_us * 1000)
        return {}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("most", "alone_us", "more_us", "chosen", "made"),
    [
        (1, 50_000, 1, 1, 1),  # there is one processor
        (4, 4_000, 1, 1, 1),  # small: not even tried
        (4, 20_000, 9_000, 4, 2),
        (4, 20_000, 15_000, 1, 2),  # faster, but not by enough
        (4, 20_000, 40_000, 1, 2),
    ],
)
def test_more_threads_are_taken_where_they_pay(
    monkeypatch: pytest.MonkeyPatch, most: int, alone_us: float, more_us: float, chosen: int, made: int
) -> None:
    clock, tried = [0], list[Taking]()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])

    def make(count: int) -> Any:
        tried.append(Taking(clock, count, alone_us if count == 1 else more_us))
        return tried[-1]

    found: Any = threads.measured(BUNDLE, make, most)
    assert (found.count, len(tried)) == (chosen, made)
    assert [each.closed for each in tried] == [each is not found for each in tried]


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"inputs": {"z": [1]}}'])
def test_golden_rows_that_cannot_be_read_are_left_to_the_warm_up(content: bytes) -> None:
    broken = sealed("onnx", {"model.onnx": mlp(), "golden.json": content}, **MLP_SPECS)
    executor = threads.measured(broken, lambda count: OnnxExecutor(broken, threads=count), 2)
    assert executor.predict({"x": ROWS}, 4)["y"].shape == (4, 3)


def test_threads_change_no_answer_beyond_rounding() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    one, two = (OnnxExecutor(BUNDLE, threads=count).predict({"x": rows}, 64)["y"] for count in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
