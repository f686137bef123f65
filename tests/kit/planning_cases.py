"""Trainings whose most live bytes are counted: run by test_planning_ranks.py in each rank, not a test itself.

`python planning_cases.py RANKS FOLDER CASE...` writes the bytes of each case in FOLDER/CASE-RANK.json; of a case
`timed-CASE` the seconds of a step.
"""

from __future__ import annotations

import json
import sys
import time
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit import ranks
from kit.networks import Transformer
from mainspring.training.distribution import Distributed
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.world import launched

ROWS = 192  # of two batches: the optimiser has its states in the second
# Axes and switches of trainings beside copies, by the name of a case: MODULE/NAME
DECLARED: dict[str, dict[str, Any]] = {
    "shards": {"shard": 2}, "mixed": {"shard": 2}, "layers": {"tensor": 2}, "stages": {"pipeline": 2},
    "again": {"checkpoint_activations": True},
    "shards and layers": {"shard": 2, "tensor": 2},
}  # fmt: skip


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that live, and the most at a time.

    A tensor that is spread over ranks has those of this rank's part. FSDP frees whole weights by resizing them to 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, int] = {}

    def __enter__(self) -> Any:
        self._resize = torch.UntypedStorage.resize_

        def resized(storage: Any, size: int) -> Any:
            found = self._resize(storage, size)
            if storage._cdata in self._known:
                self._grow(size - self._known[storage._cdata])
                self._known[storage._cdata] = size
            return found

        torch.UntypedStorage.resize_ = resized  # type: ignore[method-assign,assignment]
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*raised)

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        found = operation(*arguments, **(named or {}))
        for each in tree_leaves((found, arguments)):
            if isinstance(each, torch.Tensor):
                self.follow(each)
        return found

    def follow(self, tensor: Any) -> None:
        tensor = getattr(tensor, "_local_tensor", tensor)
        storage = tensor.untyped_storage()
        if tensor.device.type == "cpu" and storage._cdata not in self._known:
            self._known[storage._cdata] = storage.nbytes()
            self._grow(storage.nbytes())
            weakref.finalize(storage, self._gone, storage._cdata)

    def _grow(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)

    def known(self, tensor: Any) -> None:
        """Leave a tensor out."""
        self._known[tensor.untyped_storage()._cdata] = 0


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


def case(name: str) -> tuple[Any, Any, Any, int]:
    """Return a module, its rows, its loss, and in how many parts a batch is computed."""
    torch.manual_seed(0)
    accumulate = 2 if name.endswith(("-2", "/stages")) else 1
    functions = torch.nn.functional
    if name.startswith("perceptron"):
        rows = (torch.randn(ROWS, 64), torch.rand(ROWS, 1))
        return perceptron(), rows, functions.mse_loss, accumulate
    if name == "convolutional":
        images = torch.randn(ROWS, 3, 16, 16)
        return convolutional(), (images, torch.arange(ROWS) % 10), functions.cross_entropy, accumulate
    words = torch.randint(0, 300, (ROWS, 16))
    return (
        Transformer(words=300, width=64, hidden=256, heads=4, layers=3),
        (words, words.roll(1, 1)),
        functions.cross_entropy,
        accumulate,
    )


def declared(name: str, size: int) -> Distributed:
    """Return how `size` ranks share a case."""
    return Distributed(processes=size, **DECLARED.get(name.partition("/")[2], {}))


def counted(name: str, size: int) -> int:
    """Return the most live bytes of a training's steps on `size` ranks, all of its rows aside."""
    module, rows, loss, accumulate = case(name)
    adam = torch.optim.Adam(module.parameters(), lr=0.001)
    live, begun, peaks = Live(), [], []
    adam.register_step_post_hook(lambda *_: peaks.append(live.most))

    def noted(outputs: Any, targets: Any) -> Any:
        if not begun:  # what it takes to spread the module is over
            live.most = live.now
            begun.append(True)
        return loss(outputs, targets)

    for each in rows:
        live.known(each)
    with live:
        for each in module.parameters():
            live.follow(each)
        fit_torch(module, rows, noted, optimiser=adam, epochs=1, batch_size=ROWS // 2, accumulate=accumulate,
                  amp=name.endswith("/mixed"), distributed=declared(name, size))  # fmt: skip
    return peaks[-1]


def step_s(name: str, size: int) -> float:
    """Return the seconds of a step of a training on `size` ranks: those that a quarter of the steps fall below."""
    module, rows, loss, accumulate = case(name)
    adam = torch.optim.Adam(module.parameters(), lr=0.001)
    ended: list[float] = []
    adam.register_step_post_hook(lambda *_: ended.append(time.perf_counter()))
    fit_torch(module, rows, loss, optimiser=adam, epochs=15, batch_size=ROWS // 2, accumulate=accumulate,
              distributed=declared(name, size))  # fmt: skip
    taken = sorted(after - before for before, after in pairwise(ended[4:]))
    return taken[len(taken) // 4]


def main(folder: Path, names: list[str]) -> None:
    world = launched()
    for name in names:
        measure = step_s if name.startswith("timed-") else counted
        found = measure(name.removeprefix("timed-"), world.size)
        (folder / f"{name.replace('/', ' ')}-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
