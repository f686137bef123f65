"""Trainings whose module is spread over processes against the same one in one process."""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from kit import ranks
from kit.depth import deep
from kit.later import later

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.mesh_cases")
parallel_cases = later("kit.parallel_cases")
SCRIPT = Path(ranks.__file__).with_name("mesh_cases.py")
TOLERANCE = 1e-12  # of weights in float64 after some 10 steps: sums of gradients in another order
NAMES = ("perceptron", "convolutional", "transformer", "tied")
PAIR = [
    "convolutional:shard=2", "tied:shard=2", "transformer:tensor=2", "convolutional:pipeline=2,again",
    "tied:pipeline=2", "dropping:tensor=2", "transformer:shard=2,offload,again", "gpt2:tensor=2",
]  # fmt: skip
MIXED = ["mixed:", "mixed:shard=2", "mixed:tensor=2", "mixed:pipeline=2", "mixed-words:shard=2",
         "mixed-words:shard=2,again,offload"]  # fmt: skip
MIXED_WITHIN = 0.02  # of weights after some 10 steps in bfloat16, which has 8 bits
REFUSED = {
    "refused-skip:pipeline=2": "Stage 1 of the pipeline gives NaN: it uses values that layers of another stage have",
    "refused-other:shard=2": "The optimiser has a parameter of shape (3,) that the module has not",
    "refused-lock:shard=2": "it cannot be copied: TypeError",
    "refused-none:tensor=2": "No layer can be spread over 2 processes. The module has layers.0 (Linear)",
}
FOUR = [
    "perceptron:shard=2", "tied:shard=2,tensor=2", "convolutional:pipeline=2", "tied:pipeline=2,shard=2",
    "transformer:pipeline=2,tensor=2",
]  # fmt: skip
AXES = {
    2: ["", "shard=2", "shard=2,again", "shard=2,offload", "tensor=2", "tensor=2,again", "pipeline=2",
        "pipeline=2,again"],
    4: ["", "again", "shard=4", "shard=4,offload", "tensor=2", "pipeline=2", "shard=2,again", "shard=2,tensor=2",
        "shard=2,tensor=2,again", "pipeline=2,shard=2,again", "pipeline=2,tensor=2", "pipeline=2,tensor=2,again"],
}  # fmt: skip


def every(size: int) -> list[str]:
    """Every module on every mesh of so many processes; there is no layer of the convolutional one to cut."""
    found = [f"{name}:{axes}" for name, axes in itertools.product((*NAMES, "gpt2"), AXES[size])]
    return [each for each in found if not (each.startswith("convolutional") and "tensor" in each)]


def stored(folder: Path, size: int, names: list[str], within_s: float = 180) -> dict[str, list[Any]]:
    """Train cases in `size` processes; return the weights and metrics of each rank."""
    status, said = ranks.run(SCRIPT, size, folder, names, within_s)
    assert status == 0, said
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(size)] for name in names}


def check(found: dict[str, list[Any]]) -> None:
    for name, by_rank in found.items():
        weights, metrics = parallel_cases.train(name.partition(":")[0], **cases.settings(name))
        for rank, (other, seen) in enumerate(by_rank):
            assert other.keys() == weights.keys(), name
            for key, wanted in weights.items():
                assert type(other[key]) is torch.Tensor
                torch.testing.assert_close(other[key], wanted, rtol=TOLERANCE, atol=TOLERANCE, msg=f"{name} {key}")
                assert torch.equal(other[key], by_rank[0][0][key]), (name, key)
            for metric in ("loss", "validation"):
                assert seen[metric] == (pytest.approx(metrics[metric], rel=1e-12) if rank == 0 else []), name
        assert metrics["loss"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return stored(tmp_path_factory.mktemp("pair"), 2, [*PAIR, *MIXED, *REFUSED])


def test_two_processes_train_as_one(pair: dict[str, list[Any]]) -> None:
    check({name: pair[name] for name in PAIR})


def test_mixed_precision_is_that_of_one_process_within_its_rounding(pair: dict[str, list[Any]]) -> None:
    """Shards are gathered in bfloat16 and summed in float32; without them, `torch.autocast` computes as in one."""
    for name in MIXED:
        case = name.partition(":")[0]
        weights, metrics = parallel_cases.train(case, **cases.settings(name))
        exact, _ = parallel_cases.train(case, **cases.settings(name), amp=False)
        found, seen = pair[name][0]
        assert all(each.dtype == torch.float32 and torch.equal(each, pair[name][1][0][key])
                   for key, each in found.items())  # fmt: skip
        assert apart(found, exact) > 0
        assert apart(found, weights) < MIXED_WITHIN, name
        assert seen["loss"] == pytest.approx(metrics["loss"], rel=MIXED_WITHIN), name


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the distance between all weights, as a part of their norm."""
    pairs = [(one[name].double().flatten(), other[name].double().flatten()) for name in one]
    first, second = (torch.cat(each) for each in zip(*pairs, strict=True))
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_spread_is_refused_by_all_ranks(name: str, pair: dict[str, list[Any]]) -> None:
    assert all(REFUSED[name] in said for said in pair[name]), pair[name]


@deep
def test_four_processes_train_as_one_on_two_axes(tmp_path: Path) -> None:
    check(stored(tmp_path, 4, FOUR))


@deep
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.timeout(1200)
def test_every_module_on_every_mesh(size: int, tmp_path: Path) -> None:
    check(stored(tmp_path, size, every(size), within_s=900))


RESUMED = ["shard=2", "tensor=2", "pipeline=2"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """A folder with checkpoints of trainings that a signal to the last rank stopped within an epoch, and their ends."""
    folder = tmp_path_factory.mktemp("stopped")
    return folder, stored(folder, 2, [f"{name}:{axes}" for axes in RESUMED for name in ("stopped", "undisturbed")]
                          + ["dry-stopped:shard=2"])  # fmt: skip


def test_a_signal_stops_all_ranks_of_a_mesh_with_whole_weights(stopped: tuple[Path, dict[str, list[Any]]]) -> None:
    for axes in RESUMED:
        by_rank = stopped[1][f"stopped:{axes}"]
        assert [ended for _, ended in by_rank] == [signal.SIGTERM, signal.SIGTERM]
        for name, value in by_rank[0][0].items():
            assert torch.equal(value, by_rank[1][0][name])
            assert not torch.equal(value, stopped[1][f"undisturbed:{axes}"][0][0][name])


def test_it_resumes_bit_for_bit_on_the_same_mesh(stopped: tuple[Path, dict[str, list[Any]]], tmp_path: Path) -> None:
    """Units are dropped at random, so that random states count."""
    shutil.copytree(stopped[0], tmp_path, dirs_exist_ok=True)
    found = stored(tmp_path, 2, [f"resumed:{axes}" for axes in RESUMED])
    for axes in RESUMED:
        for weights, ended in found[f"resumed:{axes}"]:
            assert not ended
            for name, wanted in stopped[1][f"undisturbed:{axes}"][0][0].items():
                assert torch.equal(weights[name], wanted), (axes, name)


def test_it_resumes_on_another_mesh(stopped: tuple[Path, dict[str, list[Any]]], tmp_path: Path) -> None:
    """The same steps are left; dropped units are others, as there are other random generators."""
    before = {axes: stopped[0] / axes / "checkpoints" for axes in RESUMED}
    for to, axes in zip(["pipeline=2,shard=2", "shard=2", "tensor=2"], RESUMED, strict=True):
        shutil.copytree(before[axes], tmp_path / to / "checkpoints")
    shutil.copytree(stopped[0] / "shard=2" / "dry", tmp_path / "pipeline=2,tensor=2" / "dry")
    dry = "dry-resumed:pipeline=2,tensor=2"
    for size, names in ((4, ["resumed:pipeline=2,shard=2", dry]), (2, ["resumed:shard=2", "resumed:tensor=2"])):
        for by_rank in stored(tmp_path, size, names).values():
            assert all(torch.equal(value, by_rank[0][0][name]) for each, _ in by_rank for name, value in each.items())
    for to in ("pipeline=2,shard=2", "shard=2", "tensor=2"):
        steps = sorted({int(each.name[:12]) for each in tmp_path.glob(f"{to}/checkpoints/*/*.safetensors")})
        assert 3 < steps[0] < 12, to
        assert steps[-1] == 30
    alone, _ = parallel_cases.train_stopping(tmp_path, None, "alone", accumulate=2, dropout=0.0)
    for name, wanted in alone.items():  # without dropped units, they are those of one process that nobody stopped
        value = torch.load(tmp_path / f"{dry}-3.pt")[0][name]
        torch.testing.assert_close(value, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@deep
@pytest.mark.parametrize("case", ["transformer:tensor=2", "tied:pipeline=2", "transformer:shard=2"])
def test_heads_of_attention_and_weights_of_two_stages_resume_bit_for_bit(case: str, tmp_path: Path) -> None:
    stopped, resumed, undisturbed = stored(tmp_path, 2, [f"kept-{case}:5", f"kept-{case}:0", case]).values()
    assert stopped == [signal.SIGTERM, signal.SIGTERM]
    for rank in (0, 1):
        assert all(torch.equal(each, resumed[rank][0][name]) for name, each in undisturbed[rank][0].items())
