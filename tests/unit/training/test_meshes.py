"""Trainings whose module is spread over processes against the same one in one process."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from kit import ranks
from kit.depth import deep

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
cases = importlib.import_module("kit.mesh_cases")
parallel_cases = importlib.import_module("kit.parallel_cases")
SCRIPT = Path(cases.__file__)
TOLERANCE = 1e-12  # of weights in float64 after some 15 steps: sums of gradients in another order
NAMES = ("perceptron", "convolutional", "transformer", "tied")
PAIR = [
    "convolutional:shard=2", "transformer:shard=2,again", "tied:shard=2", "transformer:tensor=2", "perceptron:tensor=2",
    "convolutional:pipeline=2,again", "tied:pipeline=2",
]  # fmt: skip
FOUR = [
    "perceptron:shard=2", "transformer:shard=2,tensor=2", "tied:shard=2,tensor=2", "convolutional:pipeline=2",
    "tied:pipeline=2,shard=2", "transformer:pipeline=2,tensor=2",
]  # fmt: skip
AXES = [
    "shard=4",
    "tensor=2",
    "pipeline=2",
    "shard=2,again",
    "shard=2,tensor=2",
    "pipeline=2,shard=2,again",
    "pipeline=2,tensor=2",
]


def every() -> list[str]:
    found = [f"{name}:{axes}" for name, axes in itertools.product(NAMES, AXES)]
    return [each for each in found if not (each.startswith("convolutional") and "tensor" in each)]


def stored(folder: Path, size: int, names: list[str]) -> dict[str, list[Any]]:
    """Train cases in `size` processes; return the weights and metrics of each rank."""
    status, said = ranks.run(SCRIPT, size, folder, names)
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


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    check(stored(tmp_path, 2, PAIR))


def test_four_processes_train_as_one_on_two_axes(tmp_path: Path) -> None:
    check(stored(tmp_path, 4, FOUR))


@deep
def test_every_module_on_every_mesh_of_four(tmp_path: Path) -> None:
    check(stored(tmp_path, 4, every()))
