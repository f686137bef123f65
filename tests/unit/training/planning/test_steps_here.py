"""Planned times against real steps on this machine, alone and in two processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit import ranks
from kit.depth import deep
from kit.later import later
from mainspring.training.distribution import Distributed
from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.timing import WITHIN, expected

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.planning_cases")
measuring = later("mainspring.training.planning.measuring")
stopwatch = later("mainspring.training.planning.stopwatch")
subjects = later("mainspring.training.planning.subject")
plans = later("mainspring.operations.training_plan")
NAMES = ["perceptron", "convolutional", "transformer"]
BUSY = 2.5  # load at which two cores have other work
ROUNDS = 4  # other work on the machine comes and goes: the middle ones count


def ratio(name: str, size: int, folder: Path) -> float:
    """Return the planned time of a step as a part of the real one."""
    folder.mkdir()
    topology = plans.processors()
    module, (inputs, targets), loss, _ = cases.case(name)
    subject = subjects.Subject(
        name, module, torch.optim.Adam(module.parameters()), loss,
        lambda count: ((inputs[:count].clone(),), targets[:count].clone()),
    )  # fmt: skip
    model = stopwatch.timed(measuring.measured(subject, 96), subject, 96, topology.devices)
    planned = expected(model, Layout(Distributed(processes=size), 1, 96 // size), topology)[0].total
    if size == 1:
        return planned / float(cases.step_s(name, 1))
    status, said = ranks.run(Path(ranks.__file__).with_name("planning_cases.py"), size, folder, [f"timed-{name}"])
    assert status == 0, said
    return planned / float(json.loads((folder / f"timed-{name}-0.json").read_text()))


@deep
@pytest.mark.skipif(os.cpu_count() != 2, reason="two processes that have a core each")
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_takes_as_long_as_is_planned(name: str, size: int, tmp_path: Path) -> None:
    if os.getloadavg()[0] > BUSY:
        pytest.skip("other work on this machine disturbs times")
    before = torch.get_num_threads()
    torch.set_num_threads(2 if size == 1 else 1)
    try:
        found = sorted(ratio(name, size, tmp_path / str(number)) for number in range(ROUNDS))
    finally:
        torch.set_num_threads(before)
    print(name, size, [f"{each:.2f}" for each in found])
    assert any(1 / WITHIN < each < WITHIN for each in found[1:-1]), found
