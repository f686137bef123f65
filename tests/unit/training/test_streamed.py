"""A training on rows of a loader: the loop by hand over its batches, resumption at every step, and its speed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from kit.depth import examples
from kit.later import later
from mainspring.core.errors import Invalid
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.fit import fit_torch
from mainspring.training.runs.run import Run

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.parallel_cases")


def entropy(outputs: Any, targets: Any) -> Any:
    return torch.nn.functional.binary_cross_entropy(outputs, targets)


def test_it_is_bit_for_bit_the_loop_over_the_loaders_batches() -> None:
    torch.manual_seed(3)
    by_hand = cases.perceptron().double()
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.05, eps=1e-2)
    for epoch in range(3):
        for inputs, targets in cases.LOADER.batches(16, seed=5, epoch=epoch):
            adam.zero_grad()
            entropy(by_hand(torch.from_numpy(inputs)), torch.from_numpy(targets)).backward()
            adam.step()
    found, _ = cases.train("streamed", accumulate=1, validation=None, stopping=None)
    assert all(torch.equal(value, found[name]) for name, value in by_hand.state_dict().items())


def test_the_validation_is_that_of_rows_in_memory() -> None:
    given = {"accumulate": 1, "epochs": 1}
    streamed = cases.train("streamed", **given)[1]["validation"]
    in_memory = cases.train("streamed", **given, validation=(cases.ROWS, cases.TARGETS))[1]["validation"]
    assert streamed == in_memory


def test_it_resumes_at_every_step_as_if_undisturbed(tmp_path: Path) -> None:
    undisturbed, ended = cases.train_stopping(tmp_path, None, "others", cases.LOADER)
    assert not ended
    for at in examples(gate=(1, 7, 11, 29), deep=range(1, 30)):
        assert cases.train_stopping(tmp_path, at, str(at), cases.LOADER)[1] == signal.SIGTERM
        steps = [int(each.stem) for each in (tmp_path / str(at)).glob("*/*.safetensors")]
        assert steps == [at]
        found, ended = cases.train_stopping(tmp_path, None, str(at), cases.LOADER)
        assert not ended
        assert all(torch.equal(value, found[name]) for name, value in undisturbed.items())


def test_another_window_is_another_training(tmp_path: Path) -> None:
    for window in (20, 21):
        cases.train_stopping(tmp_path, 3, rows=cases.loader(window))
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 2


class _Slow(Loader):
    """A loader whose rows come slowly."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        whole = self._layout.write

        def write(*of: Any) -> None:
            time.sleep(0.005)
            whole(*of)

        self._layout.write = write  # type: ignore[method-assign]


@pytest.mark.parametrize(("kind", "bound"), [(Loader, "compute: "), (_Slow, "data: ")])
def test_the_run_says_how_fast_rows_came_and_what_bound_it(kind: Any, bound: str) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        time.sleep(0.01 if kind is Loader else 0)
        return entropy(outputs, targets)

    loader = kind(Path(cases.FILES.name), inputs=[f"x{column}" for column in range(6)], targets=["y"], window=30)
    network = torch.nn.Sequential(torch.nn.Linear(6, 1), torch.nn.Sigmoid())
    adam = torch.optim.Adam(network.parameters())
    tracking, clock = MemoryTracking(), ManualClock(0)
    with Run(tracking, tracking.start("m", {}, 0), clock, seed=5) as run:
        fit_torch(network, loader, loss, optimiser=adam, run=run, epochs=10, batch_size=7, log_every=20)
    assert tracking.get(run.id).tags["bound_by"].startswith(bound)
    history = {name: [value for value, *_ in tracking.history(run.id, f"data.{name}")]
               for name in ("rows_per_s", "mb_per_s", "waiting")}  # fmt: skip
    assert [len(each) for each in history.values()] == [5, 5, 5]
    rates = zip(history["rows_per_s"], history["mb_per_s"], strict=True)
    assert all(mb == pytest.approx(rows * 28 / 1e6) for rows, mb in rates)
    assert all(0 <= each <= 1 for each in history["waiting"])


def test_loaders_that_cannot_be_trained_on() -> None:
    network = cases.perceptron()
    adam = torch.optim.Adam(network.parameters())
    with pytest.raises(Invalid, match="no targets"):
        fit_torch(network, Loader(Path(cases.FILES.name), inputs=["x0"]), entropy, optimiser=adam)
