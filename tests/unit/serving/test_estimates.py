"""The line through the batches that ran."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.serving.batching.estimates import Cost


def learnt(*seen: tuple[int, float]) -> Cost:
    cost = Cost()
    for rows, took in seen:
        cost.observe(rows, took)
    return cost


def test_nothing_is_known_at_first() -> None:
    assert Cost().predict(10) == 0


def test_the_line_of_two_sizes() -> None:
    cost = learnt((1, 110), (11, 210), (1, 110), (11, 210))
    assert [cost.predict(rows) for rows in (1, 11, 101)] == pytest.approx([110, 210, 1110])


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1e6)), min_size=1, max_size=50))
def test_a_cost_is_never_negative_and_more_rows_never_cost_less(seen: list[tuple[int, float]]) -> None:
    cost = learnt(*seen)
    predicted = [cost.predict(rows) for rows in (1, 10, 1000)]
    assert predicted[0] >= -1e-6
    assert predicted == sorted(predicted)


def test_one_size_alone_errs_on_the_late_side_for_more_rows() -> None:
    assert learnt((10, 100)).predict(20) == 200


def test_one_batch_that_something_else_held_up_hardly_counts() -> None:
    cost = learnt(*[(1, 100.0)] * 20, (1, 1_000_000.0))
    assert cost.predict(1) < 130


def test_a_model_that_became_slower_is_soon_known_to_be() -> None:
    cost = learnt(*[(1, 100.0)] * 20, *[(1, 10_000.0)] * 60)
    assert cost.predict(1) > 8_000


def test_how_far_batches_are_from_the_line_is_known() -> None:
    cost = learnt(*[(1, 100.0), (10, 1_000.0)] * 20)
    assert cost.deviation == pytest.approx(0, abs=1e-6)
    chance = random.Random(1)
    for _ in range(400):
        rows = chance.randint(1, 32)
        cost.observe(rows, (100 + 10 * rows) * chance.gauss(1, 0.1))
    assert cost.usual_deviation == pytest.approx(0.1, abs=0.05)
    assert cost.deviation == pytest.approx(0.1, abs=0.05)


def test_a_few_batches_that_were_held_up_move_the_usual_deviation_less() -> None:
    cost = learnt(*[(1, 100.0), (1, 110.0), (1, 90.0)] * 20, (1, 400.0))
    assert cost.usual_deviation < 0.7 * cost.deviation


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_line_that_moved_is_known_after_a_dozen_batches(factor: float) -> None:
    cost = learnt(*[(1, 110.0), (11, 210.0)] * 20, *[(1, 110.0 * factor), (11, 210.0 * factor)] * 6)
    assert cost.predict(11) == pytest.approx(210 * factor, rel=0.15)
