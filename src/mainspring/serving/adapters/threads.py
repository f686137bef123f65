"""Number of threads of a model: one, unless more were measured to pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Bundle
from mainspring.serving.plane.executor import arrays
from mainspring.serving.ports import Executor

SMALL_US = 5_000.0  # a model that answers its golden rows in less stays on one thread: its bits repeat
PAYS = 1.5  # more threads are to be so many times as fast
_RUNS = 3


def measured(bundle: Bundle, make: Callable[[int], Executor], most: int) -> Executor:
    """Return the executor with one thread, or with `most` where its golden rows say that they pay.

    Args:
        make: Makes the executor with a number of threads.
        most: The processors that this process may use.
    """
    one = make(1)
    if most < 2 or GOLDEN not in bundle.files:
        return one
    try:
        given: Mapping[str, list[Any]] = msgspec.json.decode(bundle.files[GOLDEN])["inputs"]
        rows = len(next(iter(given.values())))
        inputs = arrays(given, one, bundle.manifest, rows)
        alone_us = _fastest_us(one, inputs, rows)
        if alone_us < SMALL_US:
            return one
        more = make(most)
        if _fastest_us(more, inputs, rows) * PAYS <= alone_us:
            one.close()
            return more
        more.close()
    except Exception:  # warming up says what is wrong with the rows, or with the model
        return one
    return one


def _fastest_us(executor: Executor, inputs: Mapping[str, Any], rows: int) -> float:
    took = []
    for _ in range(_RUNS):
        begun = time.perf_counter_ns()
        executor.predict(inputs, rows)
        took.append((time.perf_counter_ns() - begun) / 1000)
    return min(took)
