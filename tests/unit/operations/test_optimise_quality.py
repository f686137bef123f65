"""The quality of a variant beside its version: answers that are no numbers, or do not vary, are no small loss."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import NotConvertible
from mainspring.core.time import DAY
from mainspring.delivery.held_out import HeldOut, Scored
from mainspring.operations.optimise.agreeing import of_length_one, squared_errors, unexplained
from mainspring.operations.optimise.judging import quality_of


def test_answers_that_are_not_finite_are_no_small_loss() -> None:
    theirs = np.array([[1.0], [np.nan], [3.0]])
    assert squared_errors(theirs, np.array([[1.0], [np.nan], [5.0]])).tolist() == [0.0, 0.0, 4.0]
    for odd in (np.nan, np.inf):
        with pytest.raises(NotConvertible, match="1 of 3 rows"):
            squared_errors(theirs, np.array([[odd], [np.nan], [3.0]]))
        with pytest.raises(NotConvertible, match="1 of 2 texts are not finite"):
            of_length_one([[3.0, 4.0], [odd, 0.0]])
    assert of_length_one([[3.0, 4.0], [0.0, 0.0]]).tolist() == [[0.6, 0.8], [0.0, 0.0]]


NUMBERS = st.one_of(st.just(np.nan), st.floats(-100, 100, width=16))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(-100, 100, width=16)), min_size=2, max_size=12))
def test_what_a_variant_does_not_explain_is_that_of_the_numbers_alone(rows: list[tuple[float, float, float]]) -> None:
    theirs = np.array([row[:2] for row in rows])
    ours = np.where(np.isnan(theirs), np.nan, theirs + np.array([row[2:] for row in rows]))
    errors, block = squared_errors(theirs, ours), np.arange(len(rows)) % 2
    spread = sum(np.nansum((theirs[:, each] - m) ** 2) for each, m in enumerate(np.nansum(theirs, axis=0) / [
        max(1, count) for count in (~np.isnan(theirs)).sum(axis=0)]))  # fmt: skip
    if errors.sum() > 0 and spread == 0:
        with pytest.raises(NotConvertible, match="the same answer to all rows"):
            unexplained(errors, theirs, block)
    else:
        assert unexplained(errors, theirs, block)[0] == pytest.approx(errors.sum() / spread if errors.sum() else 0.0)


def test_a_null_answer_of_the_version_hides_no_loss() -> None:
    theirs = np.array([[1.0], [np.nan], [3.0]])
    ours = np.array([[100.0], [np.nan], [-50.0]])
    assert unexplained(squared_errors(theirs, ours), theirs, np.arange(3))[0] == (99**2 + 53**2) / 2


@pytest.mark.parametrize(("scores", "odd"), [([0.2, np.nan, 0.9, 0.1], 1), ([np.nan] * 4, 4)])
def test_a_metric_without_value_is_no_quality(scores: list[float], odd: int) -> None:
    truth, own = np.array([0, 1, 1, 0]), np.array([0.2, 0.8, 0.9, 0.1])
    rows = HeldOut(
        "binary", np.arange(4) * DAY, pa.table({"x": range(4)}), Scored(truth, np.array(scores), {}, None),
        Scored(truth, own, {}, None),
    )  # fmt: skip
    with pytest.raises(NotConvertible, match=f"The metric auc has no value on its 4 .* in {odd} its answers"):
        quality_of(rows, "auc", higher=True)
