"""Warm-up: a bundle brings rows and the answers they must give. It answers them here, or it is not served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt, MainspringError
from mainspring.registry.column_codec import Packed, unpack
from mainspring.registry.model import Bundle
from mainspring.serving.batching.estimates import Cost
from mainspring.serving.plane.executor import arrays
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.tensor import BYTES

_RUNS = 5
_AT_ONCE = 1024  # rows: the largest batch that is served


class Golden(msgspec.Struct, frozen=True):
    """`golden.json`: columns of the same length, nested where a row is a tensor. A null input is null; a null answer is
    NaN.

    Args:
        probes: Nulls, unseen categories, values at split thresholds.
        held_out: Ten thousand rows that training did not see; a bundle that no training made has none.
    """

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    probes: Golden | None = None
    held_out: Packed | None = None


_Outputs = dict[str, np.ndarray[Any, Any]]  # each of shape (rows, ...)


def warm_up(bundle: Bundle, executor: Executor) -> Cost:
    """Run the golden rows, together and one by one, and every held-out row and probe; return what a batch costs.

    Raises:
        Corrupt: The golden rows cannot be read, an answer is further off than the bundle's tolerance, or a row is
            answered otherwise alone than among others: then nobody could batch it.
    """
    name = f"bundle {bundle.digest[:12]}"
    try:
        golden = msgspec.json.decode(bundle.files["golden.json"], type=Golden)
        rows = len(next(iter(golden.outputs.values())))
        expected = _comparable(golden.outputs, executor)
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
            f"The {name} returns {_shown(together, row)} for golden row {row} instead of {_shown(expected, row)}; "
            f"{wrong.size} of {rows} rows differ by more than {tolerance:g}.",
            fix="train the model again on this version of the runtime.",
        )
    if golden.probes is not None:
        _check_probes(golden.probes, executor, tolerance, name)
    if golden.held_out is not None:
        _check_held_out(golden.held_out, executor, tolerance, name)
    for row in range(min(rows, 32)):
        alone = _predict(executor, _row(golden.inputs, row), 1, name)
        if _beyond(alone, {output: array[row : row + 1] for output, array in together.items()}, tolerance).size:
            raise Corrupt(
                f"The {name} returns different values for golden row {row} alone and in a batch.",
                fix="train a model whose prediction for a row depends on that row only.",
            )
    return _measure(executor, arrays(golden.inputs, executor, bundle.manifest, rows), rows)


def _check_probes(probes: Golden, executor: Executor, tolerance: float, name: str) -> None:
    expected = _comparable(probes.outputs, executor)
    rows = len(next(iter(expected.values())))
    wrong = _beyond(_predict(executor, probes.inputs, rows, name), expected, tolerance) if rows else np.empty(0)
    if wrong.size:
        row = {column: values[int(wrong[0])] for column, values in probes.inputs.items()}
        raise Corrupt(
            f"The {name} returns different values than at training time for {wrong.size} of {rows} probes, such "
            f"as {row}.",
            fix="train the model again on this version of the runtime.",
        )


def _check_held_out(held_out: Packed, executor: Executor, tolerance: float, name: str) -> None:
    try:
        inputs, outputs = (unpack(each, held_out.rows) for each in (held_out.inputs, held_out.outputs))
        expected = _comparable(outputs, executor)
    except (KeyError, ValueError) as error:
        raise Corrupt(f"The held-out rows of {name} cannot be read: {error!r}.") from error
    wrong: list[int] = []
    for start in range(0, held_out.rows, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, held_out.rows))
        given = {column: values[part] for column, values in inputs.items()}
        found = _predict(executor, given, part.stop - start, name)
        wanted = {output: array[part] for output, array in expected.items()}
        wrong += (start + _beyond(found, wanted, tolerance)).tolist()
    if wrong:
        row = {
            column: values[wrong[0]].item() if values.dtype != object else values[wrong[0]]
            for column, values in inputs.items()
        }
        raise Corrupt(
            f"The {name} returns different values than at training time for {len(wrong)} of {held_out.rows} "
            f"held-out rows, such as {row}.",
            fix="train the model again on this version of the runtime.",
        )


def _row(columns: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: values[row : row + 1] for name, values in columns.items()}


def _predict(executor: Executor, columns: Mapping[str, Any], rows: int, name: str) -> _Outputs:
    try:
        return _comparable(executor.predict(columns, rows), executor)
    except (KeyError, ValueError, MainspringError) as error:
        raise Corrupt(f"The {name} fails on its golden rows: {error!r}") from error


def _comparable(outputs: Mapping[str, Any], executor: Executor) -> _Outputs:
    """Return the outputs as texts and numbers of one precision."""
    return {
        name: np.asarray(outputs[name], np.object_ if spec.datatype == BYTES else np.float64)
        for name, spec in executor.outputs.items()
    }


def _beyond(found: _Outputs, expected: _Outputs, tolerance: float) -> np.ndarray[Any, Any]:
    """Return the rows in which an output differs; NaN equals NaN."""
    wrong: Any = False
    for name, array in expected.items():
        if array.shape != found[name].shape:
            return np.arange(len(array))
        if array.dtype.hasobject:
            close = found[name] == array
        else:
            close = np.isclose(found[name], array, rtol=tolerance, atol=tolerance, equal_nan=True)
        wrong = wrong | ~close.reshape(len(array), -1).all(axis=1)
    return np.flatnonzero(wrong)


def _shown(outputs: _Outputs, row: int) -> str:
    return str([array[row].tolist() for array in outputs.values()])[:200]


def _measure(executor: Executor, columns: Mapping[str, Any], rows: int) -> Cost:
    cost = Cost()
    for part, size in ((_row(columns, 0), 1), (columns, rows)):
        fastest = min(_timed(executor, part, size) for _ in range(_RUNS))
        cost.observe(size, fastest)
    return cost


def _timed(executor: Executor, columns: Mapping[str, Any], rows: int) -> float:
    begun = time.perf_counter_ns()
    executor.predict(columns, rows)
    return (time.perf_counter_ns() - begun) / 1000
