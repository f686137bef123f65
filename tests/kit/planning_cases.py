"""Trainings whose most live bytes are counted: run by test_planning_ranks.py in each rank, not a test itself.

`python planning_cases.py RANKS FOLDER CASE...` writes the bytes of each case in FOLDER/CASE-RANK.json.
"""

from __future__ import annotations

import json
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit import ranks
from mainspring.training.distribution import Distributed
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.world import launched

ROWS, EPOCHS = 192, 2


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that live, and the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        found = operation(*arguments, **(named or {}))
        for each in tree_leaves((found, arguments)):
            if isinstance(each, torch.Tensor):
                self.follow(each)
        return found

    def follow(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def known(self, tensor: Any) -> None:
        """Leave a tensor out."""
        self._known.add(tensor.untyped_storage()._cdata)


def perceptron() -> Any:
    linear = torch.nn.Linear
    return torch.nn.Sequential(
        linear(64, 512), torch.nn.ReLU(), linear(512, 512), torch.nn.ReLU(), linear(512, 512), torch.nn.ReLU(),
        linear(512, 1),
    )  # fmt: skip


def convolutional() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(32 * 12 * 12, 10),
    )  # fmt: skip


class Transformer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(300, 64)
        layer = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.last = torch.nn.Linear(64, 300)

    def forward(self, words: Any) -> Any:
        return self.last(self.layers(self.tokens(words))).transpose(1, 2)


def case(name: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return a module, its rows, its loss, and the settings of its training."""
    torch.manual_seed(0)
    functions = torch.nn.functional
    if name.startswith("perceptron"):
        rows = (torch.randn(ROWS, 64), torch.rand(ROWS, 1))
        return perceptron(), rows, functions.mse_loss, {"accumulate": 2 if name.endswith("-2") else 1}
    if name == "convolutional":
        return convolutional(), (torch.randn(ROWS, 3, 16, 16), torch.arange(ROWS) % 10), functions.cross_entropy, {}
    words = torch.randint(0, 300, (ROWS, 16))
    return Transformer(), (words, words.roll(1, 1)), functions.cross_entropy, {}


def counted(name: str, size: int) -> int:
    """Return the most live bytes of a training on `size` ranks, its rows and its validation aside."""
    module, rows, loss, settings = case(name)
    adam = torch.optim.Adam(module.parameters(), lr=0.001)
    live = Live()
    for each in rows:
        live.known(each)
    with live:
        for each in module.parameters():
            live.follow(each)
        fit_torch(module, rows, loss, optimiser=adam, epochs=EPOCHS, batch_size=ROWS // 2,
                  distributed=Distributed(processes=size), **settings)  # fmt: skip
    return live.most


def main(folder: Path, names: list[str]) -> None:
    world = launched()
    for name in names:
        (folder / f"{name}-{world.rank}.json").write_text(json.dumps(counted(name, world.size)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
