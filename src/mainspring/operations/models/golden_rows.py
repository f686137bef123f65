"""Generation of golden rows for a model without any: seeded inputs of the declared shapes, and their outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.registry.model import TensorSpec
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.tensor import DTYPES

SEED = 20130101
_MOST_ROWS = 16
_MOST_VALUES = 200_000  # maximum size of one input over all rows, if that leaves two rows
_LARGEST_ROW = 16_000_000  # values
_OPEN = 8  # size of a dynamic dimension
_WORDS = ("a", "bc", "def", "Mainspring", "0", "ü")


def seeded(specs: Mapping[str, TensorSpec], *, integers: int, seed: int = SEED) -> tuple[dict[str, Any], int]:
    """Return input -> array, and the number of rows.

    Floats are 64ths from -2 to 2, which every float type represents exactly; integers are from 0 up to `integers`.

    Raises:
        Invalid: One row of an input is too large to generate.
    """
    sizes = {name: math.prod(_row(spec)) for name, spec in specs.items()}
    for name, size in sizes.items():
        if size > _LARGEST_ROW:
            raise Invalid(f"One row of the input {name!r} has {size:,} values; the maximum is {_LARGEST_ROW:,}.")
    rows = max(2, min(_MOST_ROWS, _MOST_VALUES // max(1, *sizes.values())))
    rng = np.random.default_rng(seed)
    return {name: _drawn(rng, spec, (rows, *_row(spec)), integers) for name, spec in specs.items()}, rows


def make_golden(executor: Executor, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return golden rows in the form of `golden.json`: `inputs` and `outputs`, nested lists, null for NaN.

    Args:
        given: Inputs to use instead of seeded ones.

    Raises:
        Invalid: The model returns finite numbers for none of the rows.
        ModelFailed: It fails on all generated rows: of several failures, the first.
    """
    attempts = [(dict(given), _length(given))] if given is not None else _attempts(executor.inputs)
    failure: MainspringError | None = None
    for inputs, rows in attempts:
        try:
            answers = executor.predict(inputs, rows)
        except ModelFailed as error:
            failure = failure or error
            continue
        finite = [row for row in range(rows) if all(_finite(answers[name][row]) for name in executor.outputs)]
        if finite:
            return {
                "inputs": {name: _listed(values, finite) for name, values in inputs.items()},
                "outputs": {name: _listed(values, finite) for name, values in answers.items()},
            }
        failure = failure or Invalid("The model returns infinite or missing numbers for all generated rows.")
    assert failure is not None
    raise type(failure)(failure.what, fix="give your own rows with --golden.") from failure


def _attempts(specs: Mapping[str, TensorSpec]) -> Iterator[tuple[dict[str, Any], int]]:
    # An integer may be an index into a table of any size, so smaller ranges are tried after a failure.
    for integers in (10, 1, 0):
        yield seeded(specs, integers=integers)


def _row(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(_OPEN if size == -1 else size for size in spec.shape[1:])


def _drawn(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...], integers: int) -> Any:
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "O":
        return rng.choice(np.array(_WORDS, np.object_), size=shape)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        return (rng.integers(-128, 129, size=shape) / 64).astype(dtype)
    if spec.datatype == "UINT8" and integers > 1:  # most likely a picture
        return rng.integers(0, 256, size=shape).astype(dtype)
    # Integers of several dimensions are most likely indices and masks.
    return rng.integers(0, (min(integers, 1) if len(shape) > 1 else integers) + 1, size=shape).astype(dtype)


def _length(inputs: Mapping[str, Any]) -> int:
    lengths = {len(values) for values in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise Invalid(f"The golden inputs have {sorted(lengths) or 'no'} rows; all inputs need the same number.")
    return lengths.pop()


def _finite(answer: Any) -> bool:
    values = np.asarray(answer)
    if values.dtype.kind != "f":
        return True
    return not np.isinf(values).any() and not (values.size and np.isnan(values).all())


def _listed(values: Any, rows: list[int]) -> list[Any]:
    if not isinstance(values, np.ndarray):
        return [values[row] for row in rows]
    listed: list[Any] = values[np.asarray(rows)].tolist()
    return listed
