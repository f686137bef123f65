"""Warm-up: a bundle brings rows and the answers they must give. It answers them here, or it is not served."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt, MainspringError
from mainspring.registry.model import Bundle
from mainspring.serving.cost import Cost
from mainspring.serving.ports import Executor

_RUNS = 5


class Golden(msgspec.Struct, frozen=True):
    """`golden.json`: columns of the same length. A null input is null; a null answer is NaN."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[float | None]]


def warm_up(bundle: Bundle, executor: Executor) -> Cost:
    """Run the golden rows, together and one by one, and return what a batch costs.

    Raises:
        Corrupt: The golden rows cannot be read, an answer is further off than the bundle's tolerance, or a row is
            answered otherwise alone than among others: then nobody could batch it.
    """
    name = f"bundle {bundle.digest[:12]}"
    try:
        golden = msgspec.json.decode(bundle.files["golden.json"], type=Golden)
        rows = len(next(iter(golden.outputs.values())))
        expected = np.array([golden.outputs[output] for output in executor.outputs], np.float64)
    except (KeyError, StopIteration, ValueError, TypeError, msgspec.DecodeError) as error:
        raise Corrupt(f"The golden rows of {name} cannot be read: {error!r}.") from error
    if rows == 0:
        raise Corrupt(f"The {name} has no golden rows.")
    tolerance = bundle.manifest.tolerance
    together = _predict(executor, golden.inputs, rows, name)
    wrong = _beyond(together, expected, tolerance)
    if wrong.size:
        row = int(wrong[0])
        raise Corrupt(
            f"The {name} answers {together[:, row].tolist()} to golden row {row} and must answer "
            f"{expected[:, row].tolist()}; {wrong.size} of {rows} rows are further off than {tolerance:g}.",
            fix="train the model again on this version of the runtime.",
        )
    alone = np.hstack([_predict(executor, _row(golden.inputs, row), 1, name) for row in range(min(rows, 32))])
    apart = _beyond(alone, together[:, : alone.shape[1]], tolerance)
    if apart.size:
        raise Corrupt(
            f"The {name} answers golden row {int(apart[0])} otherwise alone than in a batch.",
            fix="train a model whose answer to a row depends on that row only.",
        )
    return _measure(executor, golden.inputs, rows, name)


def _row(columns: dict[str, list[Any]], row: int) -> dict[str, list[Any]]:
    return {name: values[row : row + 1] for name, values in columns.items()}


def _predict(executor: Executor, columns: dict[str, list[Any]], rows: int, name: str) -> np.ndarray[Any, Any]:
    """Return shape (outputs, rows)."""
    try:
        outputs = executor.predict(columns, rows)
    except (KeyError, ValueError, MainspringError) as error:
        raise Corrupt(f"The {name} does not answer its golden rows: {error!r}.") from error
    return np.array([outputs[output] for output in executor.outputs], np.float64)


def _beyond(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], tolerance: float) -> np.ndarray[Any, Any]:
    """Return the rows of shape (outputs, rows) that differ; NaN equals NaN."""
    close = np.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    return np.flatnonzero(~close.all(axis=0))


def _measure(executor: Executor, columns: dict[str, list[Any]], rows: int, name: str) -> Cost:
    cost = Cost()
    for part, size in ((_row(columns, 0), 1), (columns, rows)):
        fastest = min(_timed(executor, part, size, name) for _ in range(_RUNS))
        cost.observe(size, fastest)
    return cost


def _timed(executor: Executor, columns: dict[str, list[Any]], rows: int, name: str) -> float:
    begun = time.perf_counter_ns()
    _predict(executor, columns, rows, name)
    return (time.perf_counter_ns() - begun) / 1000
