"""Conformance suite of executors. Derive a test class and give it the fixtures `executor` and `inputs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import Invalid
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.tensor import BYTES, DTYPES

Inputs = Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]


class ExecutorConformance:
    """`executor` is fresh for each test; `inputs` are at least eight rows that it answers, no two alike."""

    def test_what_it_gives_is_what_it_says(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        answers = executor.predict(inputs, rows)
        assert list(answers) == list(executor.outputs)
        for name, spec in executor.outputs.items():
            assert (spec.name, answers[name].dtype) == (name, DTYPES[spec.datatype])
            assert answers[name].shape[0] == rows
            assert len(answers[name].shape) == len(spec.shape)
            assert all(want in (-1, have) for want, have in zip(spec.shape, answers[name].shape, strict=True))

    def test_what_it_takes_is_what_it_says(self, executor: Executor, inputs: Inputs) -> None:
        assert sorted(executor.inputs) == sorted(inputs)
        assert all(spec.name == name and spec.shape[0] == -1 for name, spec in executor.inputs.items())

    def test_a_row_alone_is_answered_as_among_others(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        together = executor.predict(inputs, rows)
        for row in range(rows):
            _same(executor.predict(_rows(inputs, [row]), 1), _rows(together, [row]))

    def test_the_order_of_rows_changes_nothing(self, executor: Executor, inputs: Inputs) -> None:
        order = np.random.default_rng(7).permutation(_count(inputs))
        _same(executor.predict(_rows(inputs, order), len(order)), _rows(executor.predict(inputs, len(order)), order))

    def test_bits_repeat(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        first, second = (executor.predict(inputs, rows) for _ in range(2))
        for name in executor.outputs:
            np.testing.assert_array_equal(first[name], second[name])

    def test_an_answer_stays_what_it_was(self, executor: Executor, inputs: Inputs) -> None:
        """Whatever buffer the model answers into, the next call does not change what was answered before."""
        rows = _count(inputs)
        first = executor.predict(inputs, rows)
        kept = {name: array.copy() for name, array in first.items()}
        executor.predict(_rows(inputs, np.arange(rows)[::-1]), rows)
        _same(first, kept)

    def test_inputs_are_left_as_they_were(self, executor: Executor, inputs: Inputs) -> None:
        given = {
            name: values.copy() if isinstance(values, np.ndarray) else list(values) for name, values in inputs.items()
        }
        executor.predict(given, _count(inputs))
        _same(_arrays(given), _arrays(inputs))

    def test_threads_at_once_each_get_their_own_answer(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        orders = [np.random.default_rng(seed).permutation(rows) for seed in range(64)]
        together = executor.predict(inputs, rows)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda order: executor.predict(_rows(inputs, order), rows), orders))
        for order, answer in zip(orders, answers, strict=True):
            _same(answer, _rows(together, order))

    def test_more_than_it_takes_is_ignored_and_less_is_refused(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        more = {**inputs, "somebody else's": [0] * rows}
        _same(executor.predict(more, rows), executor.predict(inputs, rows))
        for name in inputs:
            less = {other: values for other, values in inputs.items() if other != name}
            with pytest.raises(Invalid, match=name.replace(".", r"\.")):
                executor.predict(less, rows)

    def test_another_kind_of_value_is_refused(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        for name, spec in executor.inputs.items():
            values = np.asarray(inputs[name], np.object_)
            wrong = np.full(values.shape, 1.5 if spec.datatype == BYTES else "1.5", np.object_).tolist()
            with pytest.raises(Invalid, match=name.replace(".", r"\.")):
                executor.predict({**inputs, name: wrong}, rows)

    def test_an_array_of_another_type_is_refused(self, executor: Executor, inputs: Inputs) -> None:
        """Of tensors: nobody's numbers are rounded behind their back."""
        rows = _count(inputs)
        arrays = {name: values for name, values in inputs.items() if isinstance(values, np.ndarray)}
        for name, values in arrays.items():
            other = np.zeros(values.shape, np.float32 if values.dtype == np.int64 else np.int64)
            with pytest.raises(Invalid, match="datatype"):
                executor.predict({**inputs, name: other}, rows)

    def test_other_numbers_of_rows_are_refused(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        for name in inputs:
            short = _rows({name: inputs[name]}, list(range(rows - 1)))
            with pytest.raises(Invalid, match=name.replace(".", r"\.")):
                executor.predict({**inputs, **short}, rows)

    def test_a_null_is_taken_where_it_says_so_and_refused_elsewhere(self, executor: Executor, inputs: Inputs) -> None:
        rows = _count(inputs)
        for name in executor.inputs:
            values = np.asarray(inputs[name], np.object_)
            values = values.copy()
            values[0] = None
            holed = {**inputs, name: values.tolist()}
            if executor.nullable(name):
                executor.predict(holed, rows)
            else:
                with pytest.raises(Invalid, match=name.replace(".", r"\.")):
                    executor.predict(holed, rows)

    def test_closed_it_answers_no_more(self, executor: Executor, inputs: Inputs) -> None:
        executor.predict(inputs, _count(inputs))
        executor.close()
        executor.close()
        with pytest.raises(ModelFailed, match="closed"):
            executor.predict(inputs, _count(inputs))


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _rows(values: Inputs, rows: Sequence[int] | np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        name: column[np.asarray(rows)] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in values.items()
    }


def _arrays(values: Inputs) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.asarray(column) for name, column in values.items()}


def _same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, array in expected.items():
        if np.asarray(array).dtype.kind in "fc":
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], array)
