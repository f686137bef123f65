"""A training in several processes against the same one in one process."""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from kit import ranks
from kit.later import later

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.parallel_cases")
SCRIPT = Path(ranks.__file__).with_name("parallel_cases.py")
CASES = ["perceptron", "convolutional", "transformer", "streamed", "accumulated", "tied"]
TOLERANCE = 1e-12  # of weights in float64 after some 15 steps: sums of gradients in another order


@pytest.fixture(scope="module", params=[2, 4])
def found(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Any]:
    """What each rank stored, by case and rank; `size` processes trained every case."""
    folder = tmp_path_factory.mktemp("ranks")
    return stored(folder, request.param, CASES)


def stored(folder: Path, size: int, names: list[str]) -> dict[tuple[str, int], Any]:
    """Run cases in `size` processes, and return what each rank stored."""
    status, said = ranks.run(SCRIPT, size, folder, names)
    assert status == 0, said
    return {
        (case, rank): torch.load(folder / f"{case}-{rank}.pt") for case, rank in itertools.product(names, range(size))
    }


@pytest.mark.parametrize("case", CASES)
def test_weights_and_metrics_are_those_of_one_process(case: str, found: dict[tuple[str, int], Any]) -> None:
    assert [*cases.CASES] == CASES
    weights, metrics = cases.train(case)
    others = [each for (name, _), each in found.items() if name == case]
    for other, _ in others:
        assert other.keys() == weights.keys()
        for name, wanted in weights.items():
            torch.testing.assert_close(other[name], wanted, rtol=TOLERANCE, atol=TOLERANCE)
    assert others[0][1]["loss"] == pytest.approx(metrics["loss"], rel=1e-12)
    assert others[0][1]["validation"] == pytest.approx(metrics["validation"], rel=1e-12)
    assert metrics["loss"]


def test_all_ranks_end_with_the_same_weights(found: dict[tuple[str, int], Any]) -> None:
    for (case, _), (weights, _) in found.items():
        for name, value in weights.items():
            assert torch.equal(value, found[case, 0][0][name]), (case, name)


def test_only_the_first_rank_writes_metrics(found: dict[tuple[str, int], Any]) -> None:
    assert all(bool(metrics["loss"]) == (rank == 0) for (_, rank), (_, metrics) in found.items())


def test_a_batch_in_parts_is_the_whole_batch() -> None:
    whole, parts = cases.train("accumulated", accumulate=1)[0], cases.train("accumulated")[0]
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=TOLERANCE, atol=TOLERANCE)
    assert any(not torch.equal(parts[name], value) for name, value in whole.items())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], Any]]:
    """A folder with the checkpoint of a training that a signal to one of its ranks stopped, and what ended then."""
    folder = tmp_path_factory.mktemp("stopped")
    return folder, stored(folder, 2, ["stopped", "undisturbed", "preempted"])


def test_a_signal_to_one_rank_stops_all_after_the_same_step(stopped: tuple[Path, dict[tuple[str, int], Any]]) -> None:
    _, found = stopped
    assert [found["stopped", rank][1] for rank in (0, 1)] == [signal.SIGTERM, signal.SIGTERM]
    assert [found["preempted", rank][1] for rank in (0, 1)] == [-signal.SIGTERM, -signal.SIGTERM]
    assert all(torch.equal(value, found["stopped", 1][0][name]) for name, value in found["stopped", 0][0].items())


def test_it_resumes_bit_for_bit_on_as_many_ranks_and_goes_on_with_others(
    stopped: tuple[Path, dict[tuple[str, int], Any]], tmp_path: Path
) -> None:
    folder, found = stopped
    for size in (1, 2, 3):
        copy = tmp_path / str(size)
        shutil.copytree(folder / "checkpoints", copy / "checkpoints")
        weights, ended = stored(copy, size, ["resumed"])["resumed", 0]
        assert not ended
        undisturbed = found["undisturbed", 0][0]
        same = all(torch.equal(value, undisturbed[name]) for name, value in weights.items())
        assert same == (size == 2)  # units are dropped by generators of ranks
        steps = sorted(int(each.stem) for each in copy.glob("checkpoints/*/*.safetensors"))
        assert 9 < steps[0] < 12
        assert steps[-1] == 30


def test_ranks_that_disagree_are_named_and_in_what(tmp_path: Path) -> None:
    status, said = ranks.run(SCRIPT, 3, tmp_path, ["other"])
    assert status == 0, said
    differ = ["settings", "rows", "module, other optimiser or schedule", "weights at the beginning"]
    refused = [f"Rank 2 of 3 does not train what rank 0 does: other {each}." for each in differ]
    assert [each.splitlines() for each in said] == [refused] * 3
