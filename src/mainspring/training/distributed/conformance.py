"""Conformance suite of runners of trainings. Derive a test class and provide its fixture.

Each rank calls `work` of this module: a small network, and what the request makes a rank do at a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.environment import rank_variables
from mainspring.core.errors import Invalid, MainspringError
from mainspring.training.distributed.ports import BEATS, LOGS, Event, Job, Lost, Runner, Stage, Started
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import Heart
from mainspring.training.loop.launch import Launch, launching
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.world import launched

STEPS = 30  # five epochs of six


def _loop() -> None:
    while True:
        pass


def _refuse() -> None:
    error = Invalid("There is no shop 7.", fix="name another shop.")
    raise error from error  # a chain without an end, as some libraries raise


def _preempt() -> None:
    raise Interrupted(signal.SIGTERM, "The machine is preempted.", preempted=True)


DEEDS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "loop": _loop,
    "refuse": _refuse,
    "wait": lambda: time.sleep(0.2),
    "preempt": _preempt,
}


def work(request: str, tell: Callable[[str, float], None]) -> None:
    """Train as a rank; `request` has the folder, and deeds as [attempt, rank, step, deed], a step of 0 is each one."""
    import torch

    from mainspring.training.loop.fit import fit_torch

    asked, world = json.loads(request), launched()
    folder, attempt = Path(asked["folder"]), int(rank_variables().get("TORCHELASTIC_RESTART_COUNT", "0"))
    step = 0

    def loss(outputs: Any, targets: Any) -> Any:
        nonlocal step
        value = torch.nn.functional.mse_loss(outputs, targets)
        if torch.is_grad_enabled():
            step += 1
            for when, rank, at, deed in asked["deeds"]:
                if when == attempt and rank == world.rank and at in (0, step):
                    if deed == "nan":
                        return value * float("nan")
                    DEEDS[deed]()
        return value

    sys.stdout.write(f"rank {world.rank} of {world.size} works\n")
    tell("train", 0.5)
    torch.manual_seed(1)
    rows = torch.randn(48, 4)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    launch = Launch(Distributed(), folder / "checkpoints", Heart(folder / BEATS.format(world.rank)))
    with launching(launch):
        fit_torch(
            network, (rows, rows.sum(1, keepdim=True)), loss, optimiser=torch.optim.Adam(network.parameters(), 0.01),
            epochs=STEPS // 6, batch_size=8, checkpoint_every_steps=2,
        )  # fmt: skip
    found = {name: weights.tolist() for name, weights in network.state_dict().items()}
    (folder / f"weights-{world.rank}.json").write_text(json.dumps(found))


class RunnerConformance:
    """Behaviour of every runner. Its fixture `runner`, of the class, is one; all processes see the folders of tests."""

    shape: Mapping[str, Any] = {"processes": 2}  # of each job: two ranks

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The folder of a job."""
        return tmp_path

    @classmethod
    def run(
        cls,
        runner: Runner,
        folder: Path,
        *deeds: Sequence[Any],
        stop: Callable[[], int] = lambda: 0,
        **settings: Any,
    ) -> list[Event]:
        """Run a job of two ranks, and return what its runner told."""
        request = json.dumps({"folder": str(folder), "deeds": deeds})
        distributed = replace(Distributed(**cls.shape, restarts=1, silence_s=2.0), **settings)
        job = Job("run", __name__, request, folder, distributed)
        return list(runner.run(job, stop))

    @pytest.fixture(scope="class")
    @classmethod
    def undisturbed(cls, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> str:
        """The weights of a training in which nothing happened."""
        folder = tmp_path_factory.mktemp("undisturbed")
        told = cls.run(runner, folder)
        assert next(each for each in told if not isinstance(each, Stage)) == Started(2, 0)
        assert Stage("train", 0.5) in told
        assert not [each for each in told if isinstance(each, Lost)]
        for rank in (0, 1):
            assert f"rank {rank} of 2 works" in (folder / LOGS.format(rank)).read_text()
        weights = (folder / "weights-0.json").read_text()
        assert weights == (folder / "weights-1.json").read_text()
        return weights

    def test_ranks_that_die_or_hang_are_replaced_and_all_goes_on_as_if_undisturbed(
        self, runner: Runner, folder: Path, undisturbed: str
    ) -> None:
        told = self.run(runner, folder, [0, 1, 5, "kill"], [1, 0, 4, "loop"], [2, 1, 4, "stop"], restarts=3)
        assert [each.size for each in told if isinstance(each, Started)] == [2] * 4
        killed, looped, stopped = (each for each in told if isinstance(each, Lost))
        assert (killed.rank, killed.size) == (1, 2)
        assert killed.why.endswith("was killed by SIGKILL")
        assert (looped.rank, stopped.rank) == (0, 1)
        assert "told nothing for 2 s after step " in looped.why
        assert "in _loop" in looped.why
        assert "stopped by a signal" in stopped.why
        assert (folder / "weights-0.json").read_text() == (folder / "weights-1.json").read_text() == undisturbed

    @pytest.mark.parametrize(
        ("deed", "kind", "words"),
        [
            ("refuse", Invalid, r"Rank 1 of 2.*: There is no shop 7\."),
            ("nan", MainspringError, "Rank 1 of 2.*: The loss is nan at step 5"),
        ],
    )
    def test_the_first_error_ends_all_and_is_raised_with_its_rank(
        self, runner: Runner, folder: Path, deed: str, kind: type[MainspringError], words: str
    ) -> None:
        with pytest.raises(kind, match=words):
            self.run(runner, folder, [0, 1, 5, deed])

    def test_fewer_go_on_once_none_is_replaced_and_with_none_left_that_is_an_error(
        self, runner: Runner, folder: Path
    ) -> None:
        deeds = [0, 1, 5, "kill"], [1, 0, 4, "kill"]
        with pytest.raises(MainspringError, match="Rank 0 of 1 was killed by SIGKILL, and is not replaced any more"):
            self.run(runner, folder, *deeds, restarts=0, at_least=1)

    def test_a_stop_writes_a_checkpoint_from_which_the_next_job_goes_on(
        self, runner: Runner, folder: Path, undisturbed: str
    ) -> None:
        begun = folder / "checkpoints"
        with pytest.raises(Interrupted):
            self.run(runner, folder, stop=lambda: signal.SIGTERM)
        with pytest.raises(Interrupted, match=r"checkpoint .*\.safetensors is written"):
            self.run(runner, folder, [0, 1, 0, "wait"], stop=lambda: signal.SIGTERM if begun.exists() else 0)
        assert not (folder / "weights-0.json").exists()
        with pytest.raises(Interrupted) as stopped:
            self.run(runner, folder, [0, 0, 0, "preempt"], [0, 1, 0, "preempt"])
        assert stopped.value.preempted
        self.run(runner, folder)
        assert (folder / "weights-0.json").read_text() == undisturbed
