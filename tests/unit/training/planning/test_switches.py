"""Measured effects of switches, and measured times, on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.later import later
from mainspring.training.planning.model import Model
from mainspring.training.planning.pace import Curve, Pace, Side

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.planning_cases")
switches = later("mainspring.training.planning.switches")
subjects = later("mainspring.training.planning.subject")
stopwatch = later("mainspring.training.planning.stopwatch")
measuring = later("mainspring.training.planning.measuring")
loopback = later("mainspring.training.planning.loopback")


def subject(name: str, **settings: Any) -> Any:
    module, (inputs, targets), loss, _ = cases.case(name)
    adam = torch.optim.Adam(module.parameters(), lr=0.001)
    return subjects.Subject(
        name, module, adam, loss, lambda count: ((inputs[:count].clone(),), targets[:count].clone()), **settings
    )


def test_switches_take_the_memory_of_trainings_with_them() -> None:
    """As counted in trainings by `fit_torch`; both with and without each switch."""
    found = {(each.amp, each.checkpoint_activations): each for each in switches.effects(subject("transformer"), 96)}
    assert len(found) == 4
    assert [key for key, each in found.items() if each.own] == [(False, False)]
    assert found[False, False].memory == pytest.approx(cases.counted("transformer", 1), rel=0.02)
    assert found[False, True].memory == pytest.approx(cases.counted("transformer/again", 1), rel=0.02)
    assert found[False, True].memory < 0.6 * found[False, False].memory
    assert found[True, False].memory < 0.9 * found[False, False].memory
    assert found[True, True].memory < found[True, False].memory
    assert all(each.step_s > 0 and each.rows == 96 for each in found.values())
    assert found[True, True].said() == "amp=True and checkpoint_activations=True"


def test_a_training_with_switches_is_the_one_as_it_is_and_is_left_as_it_was() -> None:
    given_ = subject("perceptron", amp=True, again=True)
    before = {name: each.clone() for name, each in given_.module.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    found = switches.effects(given_, 32)
    assert [(each.amp, each.checkpoint_activations) for each in found if each.own] == [(True, True)]
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(each, before[name]) for name, each in given_.module.state_dict().items())
    assert not given_.optimiser.state
    assert all("forward" not in each.__dict__ for each in given_.module.modules())


def test_a_module_without_repeated_parts_has_nothing_to_compute_again() -> None:
    module = torch.nn.Linear(4, 1)
    rows = (torch.randn(8, 4),), torch.rand(8, 1)
    given_ = subjects.Subject("linear", module, torch.optim.SGD(module.parameters(), lr=0.1),
                              torch.nn.functional.mse_loss, lambda _: rows)  # fmt: skip
    assert [each.checkpoint_activations for each in switches.effects(given_, 8)] == [False, False]


def test_fewer_rows_are_tried_where_a_step_takes_long(perceptron: Model) -> None:
    slow = Side(Curve(((2, 0.1), (128, 6.4))))
    assert switches.tried_rows(replace(perceptron, pace=Pace(1, slow, slow)), 512) == 16
    assert switches.tried_rows(perceptron, 512) == 512


@pytest.fixture(scope="module")
def perceptron() -> Model:
    found: Model = measuring.measured(subject("perceptron"), 96)
    return found


def test_times_of_passes_grow_by_rows_and_others_use_the_other_cores(perceptron: Model) -> None:
    before = torch.get_num_threads()
    found = stopwatch.timed(perceptron, subject("perceptron"), 96, 2).pace
    assert torch.get_num_threads() == before
    assert [count for count, _ in found.alone.passes.points] == [2, 16, 96]
    assert [count for count, _ in found.beside.passes.points] == [2, 16, 48]
    assert found.passes(96, 1) > found.passes(2, 1) > 0
    assert found.update(1) > 0
    assert found.spread(2) >= 1
    lonely = stopwatch.timed(perceptron, subject("perceptron"), 8, 1).pace
    assert lonely.alone == lonely.beside


def test_messages_between_processes_are_measured() -> None:
    link = loopback.gloo_link(4)
    assert link.joins == 4
    assert 0.01 < link.gb_s < 100
    assert 0.5 < link.latency_us < 1e5


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.001, 1)), min_size=1, max_size=5, unique_by=lambda p: p[0]))
def test_a_curve_has_its_points_and_goes_on_beyond_them(points: list[tuple[int, float]]) -> None:
    points = sorted(points)
    times = sorted(seconds for _, seconds in points)
    curve = Curve(tuple((rows, seconds) for (rows, _), seconds in zip(points, times, strict=True)))
    for rows, seconds in curve.points:
        assert curve.at(rows) == pytest.approx(seconds)
    most, long = curve.points[-1]
    assert curve.at(2 * most) >= long
    assert curve.at(2 * most) - long >= 0.79 * long or len(points) == 1
    for (few, short), (many, longer) in zip(curve.points, curve.points[1:], strict=False):
        assert short <= curve.at((few + many) / 2) <= longer


def test_processes_between_one_and_all_cores_lie_between() -> None:
    pace = Pace(8, Side(Curve(((2, 1.0), (8, 1.0))), 0.1), Side(Curve(((2, 4.0), (8, 4.0))), 0.8))
    assert [pace.passes(4, processes) for processes in (1, 8)] == pytest.approx([1.0, 4.0])
    assert pace.passes(4, 2) == pytest.approx(4 ** (1 / 3))
    assert pace.update(4) == pytest.approx(0.1 * 8 ** (2 / 3))
