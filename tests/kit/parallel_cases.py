"""Trainings that several processes do as one: run by test_parallel.py in each rank, not a test itself.

`python parallel_cases.py RANKS FOLDER CASE...` trains each case and stores its weights and metrics in FOLDER. The last
rank of `stopped` gets SIGTERM after a few steps, and `resumed` goes on from its checkpoint; that of `other` has other
settings, rows, layers and weights, in turn.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kit import ranks
from kit.networks import Transformer
from mainspring.core.errors import Invalid
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.distribution import Distributed
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.loop.world import World, launched
from mainspring.training.preemption.notices import Notice
from mainspring.training.runs.run import Run

# In float64, so that what is left between two orders of a sum is far below any fault.
DRAWN = torch.Generator().manual_seed(0)
ROWS, IMAGES = (torch.randn(shape, generator=DRAWN).double() for shape in ((70, 6), (45, 1, 8, 8)))
WORDS = torch.randint(0, 20, (50, 7), generator=DRAWN)
TARGETS = (ROWS.sum(1, keepdim=True) > 0).double()
FILES = tempfile.TemporaryDirectory()  # of one process and those that it forks


def loader(window: int = 20) -> Loader:
    """The rows in a file, in row groups of three."""
    path = Path(FILES.name) / "rows.parquet"
    if not path.exists():
        table = pa.table({**{f"x{column}": ROWS[:, column].numpy() for column in range(6)}, "y": TARGETS[:, 0].numpy()})
        pq.write_table(table, path, row_group_size=3)
    return Loader(path, inputs=[f"x{column}" for column in range(6)], targets=["y"], dtype="float64", window=window)


LOADER = loader()


def perceptron() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1), torch.nn.Sigmoid())


def convolutional() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3),
        torch.nn.BatchNorm1d(3, momentum=None),
    )  # fmt: skip


def small_transformer() -> Any:
    return Transformer(words=20, width=16, hidden=32, heads=2, layers=2)


class Tied(torch.nn.Module):
    """A network whose first and last layer have one matrix, with a part that stays, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(20, 8)
        self.place = torch.nn.Parameter(torch.randn(7, 8))
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8)) for _ in range(4)
        )
        self.layers[1].requires_grad_(False)
        self.last = torch.nn.Linear(8, 20)
        self.last.weight = self.tokens.weight
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, words: Any) -> Any:
        found = self.tokens(words) + self.place
        for layer in self.layers:
            found = layer(found)
        return (self.last(found) * self.scale).transpose(1, 2)


class Stop:
    """Stops its process, as an operator would, at a call of the loss of each case."""

    def __init__(self) -> None:
        self.at = 0

    def of(self, loss: Any) -> Any:
        def counted(outputs: Any, targets: Any) -> Any:
            self.at -= 1
            if self.at == 0:
                signal.raise_signal(signal.SIGTERM)
            return loss(outputs, targets)

        return counted


STOP = Stop()
CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "perceptron": (perceptron, (ROWS, TARGETS), torch.nn.functional.binary_cross_entropy,
                   {"clip_norm": 0.5, "validation": (ROWS[:33], TARGETS[:33]), "stopping": EarlyStopping(patience=5)}),
    "convolutional": (convolutional, (IMAGES, torch.arange(45) % 3), torch.nn.functional.cross_entropy,
                      {"batch_size": 14}),  # the last batch has three rows, fewer than four processes
    "transformer": (small_transformer, (WORDS, WORDS.roll(1, 1)), torch.nn.functional.cross_entropy, {}),
    "streamed": (perceptron, LOADER, torch.nn.functional.binary_cross_entropy,
                 {"validation": LOADER, "accumulate": 2, "stopping": EarlyStopping(patience=5)}),
    "accumulated": (perceptron, (ROWS, TARGETS), torch.nn.functional.binary_cross_entropy, {"accumulate": 3}),
    "tied": (Tied, (WORDS, WORDS.roll(1, 1)), torch.nn.functional.cross_entropy,
             {"clip_norm": 0.3, "batch_size": 9, "validation": (WORDS[:5], WORDS[:5])}),
}  # fmt: skip

MORE: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {}  # cases of mesh_cases


def train(case: str, **settings: Any) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return the weights of a trained case, and what its run holds."""
    make, rows, loss, own = {**CASES, **MORE}[case]
    torch.manual_seed(3)
    module, tracking, clock = make().double(), MemoryTracking(), ManualClock(0)
    run = Run(tracking, tracking.start(case, {}, 0), clock, seed=5)
    # Some gradients are rounding alone, as of a bias before a normalisation: eps keeps Adam from scaling them up.
    adam = torch.optim.Adam(module.parameters(), lr=0.05, eps=1e-2)
    given = {"epochs": 3, "batch_size": 16, "log_every": 2, **deepcopy(own), **settings}
    with run:
        fit_torch(module, rows, STOP.of(loss), optimiser=adam, run=run, **given)
    found = {name: [value for value, *_ in tracking.history(run.id, name)] for name in ("loss", "validation")}
    return module.state_dict(), found


class Stopping(torch.nn.Module):
    """A network that stops its process at a forward pass, as an operator would, and drops units at random."""

    def __init__(self, at: int | None, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(dropout), torch.nn.Linear(16, 1))
        self.at = at

    def forward(self, rows: Any) -> Any:
        if self.at is not None and self.training:
            self.at -= 1
            if self.at == 0:
                signal.raise_signal(signal.SIGTERM)
        return self.layers(rows).sigmoid()

    def __repr__(self) -> str:
        return "Stopping()"


class Announced:
    """A cloud that announces the end of this machine."""

    name, least_s = "fake", 30.0

    def look(self, wait_s: float) -> Notice | None:
        return Notice("The end", wait_s)


def train_stopping(
    folder: Path,
    at: int | None,
    checkpoints: str = "checkpoints",
    rows: Any = (ROWS, TARGETS),
    dropout: float = 0.3,
    **settings: Any,
) -> tuple[dict[str, Any], int]:
    """Return the weights, and the signal by which the training ended, or 0; negative if it was preempted."""
    torch.manual_seed(3)
    module = Stopping(at, dropout).double()
    adam = torch.optim.Adam(module.parameters(), lr=0.05)
    ended = 0
    try:
        fit_torch(module, rows, torch.nn.functional.binary_cross_entropy, optimiser=adam, epochs=6, batch_size=16,
                  seed=5, checkpoints=folder / checkpoints, checkpoint_every_steps=100, **settings)  # fmt: skip
    except Interrupted as stopped:
        ended = -stopped.number if stopped.preempted else stopped.number
    return module.state_dict(), ended


def refused(last: bool, differing: str) -> str:
    """Train something else on the last rank; print and return the words with which that is refused."""
    differs = differing if last else ""
    torch.manual_seed(4 if differs == "weights" else 3)
    module = torch.nn.Linear(6, 1, bias=differs != "module").double()
    rows = 69 if differs == "rows" else 70
    try:
        fit_torch(
            module, (ROWS[:rows], TARGETS[:rows]), torch.nn.functional.mse_loss,
            optimiser=torch.optim.SGD(module.parameters()), epochs=1, batch_size=16 if differs == "settings" else 8,
            distributed=Distributed(shard=launched().size) if differing == "weights" else None,
        )  # fmt: skip
    except Invalid as error:
        print(error.what)
        return error.what
    raise AssertionError(differing)


def one(folder: Path, case: str, world: World) -> Any:
    last = world.rank == world.size - 1
    if case == "stopped":
        return train_stopping(folder, 9 if last else None)
    if case in ("resumed", "undisturbed"):
        return train_stopping(folder, None, "checkpoints" if case == "resumed" else "others")
    if case == "preempted":  # one machine: its first rank hears it
        return train_stopping(folder, None, case, preemption=Announced())
    if case == "other":
        return [refused(last, differing) for differing in ("settings", "rows", "module", "weights")]
    return train(case)


def main(folder: Path, names: list[str]) -> None:
    for case in names:
        world = launched()
        torch.save(one(folder, case, world), folder / f"{case}-{world.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
