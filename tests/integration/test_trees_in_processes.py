"""Trees under a launcher: ranks that are killed, stopped or hang are named and replaced, and the trees are the same."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import prefork, rank_depot
from kit.depot import opened
from kit.depth import examples
from kit.later import later
from mainspring.core.errors import MainspringError
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.logs import logged
from mainspring.training.distributed.ports import Event, Job, Lost
from mainspring.training.distribution import Distributed
from mainspring.training.loop.signals import Interrupted

pytestmark = pytest.mark.slow
later("xgboost")
later("lightgbm")
later("torch")
cases = later("kit.tree_cases")
trees = later("kit.launched_trees")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    cases.write(folder, rows=1500)
    return folder


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    """The agent is forked from a process that has imported PyTorch."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(sys, "executable", str(prefork.programs() / "python"))
        yield


def run(
    folder: Path, rows: Path, library: str, *deeds: list[Any], stop: Callable[[], int] = lambda: 0, **settings: Any
) -> list[Event]:
    """Fit in two processes, and return what happened."""
    folder.mkdir(exist_ok=True)
    request = json.dumps({"folder": str(folder), "rows": str(rows), "library": library, "deeds": deeds})
    declared = Distributed(**{"processes": 2, "restarts": 9, "silence_s": 2.0, **settings})
    job = Job("run", "kit.launched_trees", request, folder, declared)
    return list(LocalRunner().run(job, stop))


def found(folder: Path) -> Any:
    """Return what the trees predict, the same on both ranks."""
    first, second = (np.load(folder / f"found-{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    return first


def test_xgboost_goes_on_from_the_last_checkpoint_bit_for_bit(rows: Path, tmp_path: Path) -> None:
    run(tmp_path / "undisturbed", rows, "xgboost")
    undisturbed = found(tmp_path / "undisturbed")
    folder = tmp_path / "disturbed"
    begun = folder / "checkpoints"
    with pytest.raises(Interrupted, match=r"after round \d+; the checkpoint .*trees is written"):
        run(folder, rows, "xgboost", *([0, 1, number, "wait"] for number in range(20)),
            stop=lambda: signal.SIGTERM if [*begun.glob("*/trees")] else 0)  # fmt: skip
    deeds = [[0, 1, 9, "kill"], [1, 0, 14, "kill"], [2, 1, 17, "loop"], [3, 0, 18, "stop"]]
    deeds = deeds[: examples(gate=3, deep=4)]
    lost = [each for each in run(folder, rows, "xgboost", *deeds) if isinstance(each, Lost)]
    assert [each.rank for each in lost] == [rank for _, rank, *_ in deeds]
    assert lost[0].why == "was killed by SIGKILL"
    assert "in _loop" in lost[2].why
    np.testing.assert_array_equal(found(folder), undisturbed)
    assert b"round 20" in logged(folder / "rank-0.log")


def test_lightgbm_begins_again_and_its_trees_are_those_of_one_process(rows: Path, tmp_path: Path) -> None:
    [lost] = [each for each in run(tmp_path, rows, "lightgbm", [0, 1, 9, "kill"]) if isinstance(each, Lost)]
    assert (lost.rank, lost.why) == (1, "was killed by SIGKILL")
    wanted = cases.predictions(trees.fit("lightgbm", rows), rows)
    np.testing.assert_allclose(found(tmp_path), wanted[:1500], atol=1e-12)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_an_error_of_one_rank_is_named_and_not_that_of_having_lost_it(library: str, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(MainspringError, match=r"Rank 1 of 2: There is no shop 7\."):
        run(tmp_path, rows, library, [0, 1, 9, "refuse"])


def test_the_trees_of_two_processes_are_a_version_whatever_happened(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    depot = rank_depot.with_trees(trained[0], tmp_path / "depot")
    rank_depot.steer(depot, "0 9 os.kill(os.getpid(), signal.SIGKILL)")
    report = depot.json("train", "late-parcel")
    assert (report["version"], report["notes"][-1]) == (
        "3", "Rank 0 was killed by SIGKILL; 2 processes went on from the last checkpoint."
    )  # fmt: skip
    rank_depot.steer(depot)
    alone = depot.json("train", "late-parcel", "--processes", "1")
    assert report["metrics"] == pytest.approx(alone["metrics"], abs=1e-4)
    tracking = opened(depot).tracking
    both = [tracking.history(each["run_id"], "validation.logloss") for each in (report, alone)]
    values = [{step: value for value, step, _ in found} for found in both]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert sorted(values[0]) == list(range(1, 21))
