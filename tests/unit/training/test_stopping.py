"""Early stopping, against the definition over the whole history."""

from __future__ import annotations

import doctest
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.training.loop import stopping
from mainspring.training.loop.stopping import EarlyStopping

numbers = st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan), st.just(math.inf)), max_size=30)


@given(numbers, st.integers(1, 4), st.sampled_from([0.0, 0.5]), st.sampled_from(["min", "max"]))
def test_it_stops_where_the_history_says(values: list[float], patience: int, delta: float, mode: str) -> None:
    ours = EarlyStopping(patience, min_delta=delta, mode=mode)
    sign = 1 if mode == "min" else -1
    best, since, first = None, 0, None
    for number, value in enumerate(values, start=1):
        better = not math.isnan(value) and (best is None or sign * (best - value) > delta)
        best, since = (value, 0) if better else (best, since + 1)
        stop = ours.update(value)
        assert stop == (since >= patience)
        assert ours.best == best
        first = first or (number if stop else None)


@given(numbers, st.integers(0, 30))
def test_it_goes_on_from_its_state(values: list[float], at: int) -> None:
    whole, before, after = (EarlyStopping(3) for _ in range(3))
    expected = [whole.update(value) for value in values]
    got = [before.update(value) for value in values[:at]]
    after.restore(json.loads(json.dumps(before.state())))
    assert got + [after.update(value) for value in values[at:]] == expected
    assert (after.best, after.best_round) == (whole.best, whole.best_round)


@pytest.mark.parametrize("wrong", [{"mode": "best"}, {"patience": 0}, {"min_delta": -1.0}, {"min_delta": math.nan}])
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        EarlyStopping(**wrong)  # type: ignore[arg-type]


def test_the_example_is_true() -> None:
    assert doctest.testmod(stopping).failed == 0
