"""Durations of batches of a bundle on this machine, measured with its golden rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from mainspring.core.time import SECOND
from mainspring.registry.model import Bundle
from mainspring.serving.plane.executor import arrays
from mainspring.serving.plane.golden import Golden
from mainspring.serving.ports import Executor
from mainspring.serving.simulation.times import Times

_FEW, _LEAST, _MOST = 3, 20, 2_000  # calls of a size
_WARM = 3
_LONG = 4


def measure(
    executor: Executor, bundle: Bundle, *, most_rows: int = 64, seconds: float = 3.0,
    now: Callable[[], float] = time.perf_counter, spent_s: Callable[[], float] = time.process_time,
) -> tuple[Times, float]:  # fmt: skip
    """Return what batches of 1, 2, 4 ... rows take, one at a time, and the share of it that is processor time.

    Sizes are measured by turns, so that a disturbance of the machine meets all of them.

    Args:
        most_rows: The largest batch.
        seconds: For all sizes together, a part for each. A size is called 20 times unless that takes four times as
            long, and 3 times in any case.
        now: Seconds, monotonic.
        spent_s: Processor time of all that computes, seconds.
    """
    golden = msgspec.json.decode(bundle.files["golden.json"], type=Golden)
    rows = len(next(iter(golden.outputs.values())))
    sizes = [1 << power for power in range(most_rows.bit_length())]
    inputs = {size: _repeated(golden.inputs, rows, size, executor, bundle) for size in sizes}
    took: dict[int, list[float]] = {size: [] for size in sizes}
    spent = dict.fromkeys(sizes, 0.0)

    def call(size: int) -> None:
        begun = now()
        executor.predict(inputs[size], size)
        passed = now() - begun
        took[size].append(passed * SECOND)
        spent[size] += passed

    def wanted(size: int) -> bool:
        calls = len(took[size])
        due = spent[size] < seconds / len(sizes) and calls < _MOST
        return calls < _FEW or due or (calls < _LEAST and sum(spent.values()) < _LONG * seconds)

    for size in sizes:
        while spent[size] < seconds / len(sizes) and len(took[size]) < _WARM:
            call(size)
    took, spent = {size: [] for size in sizes}, dict.fromkeys(sizes, 0.0)
    begun_s, before_s = time.perf_counter(), spent_s()
    while turn := [size for size in sizes if wanted(size)]:
        for size in turn:
            call(size)
    share = (spent_s() - before_s) / (time.perf_counter() - begun_s)
    return Times(took), share


def _repeated(columns: dict[str, list[Any]], rows: int, size: int, executor: Executor, bundle: Bundle) -> Any:
    some = {name: [values[place % rows] for place in range(size)] for name, values in columns.items()}
    return arrays(some, executor, bundle.manifest, size)
