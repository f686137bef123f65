"""Every runner of trainings, against the shared suite.

Ray runs for real where it is installed: tests/integration/test_step_engines.py has an environment for it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kit.depth import DEEP
from kit.engines import ray_cluster
from kit.later import later
from kit.machines import MachinesRunner, OwnMachines
from kit.meetings import MeetingRunner
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.conformance import RunnerConformance
from mainspring.training.distributed.ports import Lost, Runner

later("torch")
pytestmark = pytest.mark.slow


class TestLocalRunner(RunnerConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, forked: None) -> LocalRunner:
        return LocalRunner()


@pytest.mark.skipif(not DEEP, reason="a part of `make test-deep`")
class TestSeveralMachines(RunnerConformance):
    shape: Mapping[str, Any] = {"processes": 1, "machines": 2}

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, forked: None) -> MachinesRunner:
        return MachinesRunner()


@pytest.mark.skipif(not DEEP, reason="a part of `make test-deep`")
class TestMachinesThatMeet(RunnerConformance):
    shape: Mapping[str, Any] = {"processes": 1, "machines": 2}

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, forked: None) -> MeetingRunner:
        return MeetingRunner()


@pytest.mark.usefixtures("forked")
def test_a_rank_and_a_machine_that_die_are_replaced(tmp_path: Path) -> None:
    attempt, killed = 0, []

    def kill_a_machine(machines: OwnMachines, told: Mapping[str, Any]) -> None:
        nonlocal attempt
        attempt = told.get("attempt", attempt)
        if attempt == 1 and told.get("stage") == "train":
            killed.append(machines.processes[0].process.pid)
            os.kill(killed[0], signal.SIGKILL)

    deeds = [0, 1, 5, "kill"], [1, 1, 0, "wait"]
    told = RunnerConformance.run(MachinesRunner(kill_a_machine), tmp_path, *deeds, restarts=2)
    assert [each for each in told if isinstance(each, Lost)] == [
        Lost(1, "was killed by SIGKILL", 2),
        Lost(0, f"was lost with its machine machine {killed[0]} (127.0.0.1)", 2),
    ]
    weights = [(tmp_path / f"weights-{rank}.json").read_text() for rank in (0, 1)]
    assert weights[0] == weights[1]


@pytest.fixture(scope="class")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine."""
    with ray_cluster(2, 1) as made:
        yield made.address


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
class TestRayRanks(RunnerConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, cluster: str) -> Runner:
        from mainspring.deploy.adapters.ray_ranks import RayRanks

        return RayRanks(cluster)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
class TestRayRanksOnSeveralNodes(TestRayRanks):
    shape: Mapping[str, Any] = {"processes": 1, "machines": 2}
