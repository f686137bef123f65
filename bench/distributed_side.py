"""One training of bench/distributed.py, in this process as a rank; by hand, by `ms.fit_torch`, or both by a launcher.

`work` is what our launcher calls in each rank. As a script it is what torchrun starts: with DistributedDataParallel
and a loop by hand, or with `ms.fit_torch` in one process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

WIDTH, CLASSES, ROWS, WARM = 512, 10, 16384, 10


def network(torch: Any) -> Any:
    torch.manual_seed(0)
    sizes = [WIDTH, 1024, 1024, CLASSES]
    layers = [each for a, b in pairwise(sizes) for each in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers[:-1])


class Watched:
    """The loss, which writes when steps began, and kills its rank at one of them."""

    def __init__(self, torch: Any, asked: dict[str, Any], rank: int, attempt: int) -> None:
        self._torch, self._asked, self._rank, self._attempt = torch, asked, rank, attempt
        self._step = 0
        self._began = 0.0

    def __call__(self, outputs: Any, targets: Any) -> Any:
        self._step += 1
        folder = Path(self._asked["folder"])
        if self._attempt and self._step == 1 and self._rank == 0:
            (folder / "again").write_text(str(time.monotonic()))
        if self._step == WARM:
            self._began = time.perf_counter()
        if self._step == self._asked["steps"] and self._rank == 0:
            seconds = time.perf_counter() - self._began
            (folder / "seconds").write_text(str(seconds / (self._step - WARM)))
        if not self._attempt and self._rank == 1 and self._step == self._asked["kill"]:
            (folder / "killed").write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self._torch.nn.functional.cross_entropy(outputs, targets)


def rows(torch: Any) -> tuple[Any, Any]:
    made = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, WIDTH, generator=made), torch.randint(0, CLASSES, (ROWS,), generator=made)


def keep(module: Any, adam: Any, step: int, file: Path) -> None:
    """Write weights, the optimiser's states and the step to one file."""
    from safetensors.torch import save_file

    states = {f"adam.{n}.{k}": t for n, state in adam.state_dict()["state"].items() for k, t in state.items()}
    save_file({**module.state_dict(), **states}, file.with_suffix(".partial"), {"step": str(step)})
    file.with_suffix(".partial").replace(file)


def restore(module: Any, adam: Any, file: Path) -> int:
    """Read what `keep` wrote, and return the step."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        step = int(opened.metadata()["step"])
    module.load_state_dict({name: each for name, each in tensors.items() if not name.startswith("adam.")})
    states: dict[int, dict[str, Any]] = {}
    for name, each in tensors.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            states.setdefault(int(number), {})[key] = each
    adam.load_state_dict({**adam.state_dict(), "state": states})
    return step


def by_loop(asked: dict[str, Any], rank: int, attempt: int) -> None:
    """Train with `ms.fit_torch`."""
    import torch

    from mainspring.training.loop.fit import fit_torch

    torch.set_num_threads(1)
    module = network(torch)
    fit_torch(
        module, rows(torch), Watched(torch, asked, rank, attempt), optimiser=torch.optim.Adam(module.parameters()),
        epochs=asked["epochs"], batch_size=asked["batch"], checkpoint_every_steps=asked["every"] or None,
        checkpoints=Path(asked["folder"]) / "kept" if asked["every"] else None,
    )  # fmt: skip


def by_hand(asked: dict[str, Any]) -> None:
    """Train as a script without us would: the sampler of PyTorch, and weights and optimiser in one file."""
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    module = network(torch)
    wrapped = torch.nn.parallel.DistributedDataParallel(module)
    adam = torch.optim.Adam(module.parameters())
    loss = Watched(torch, asked, rank, int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
    inputs, targets = rows(torch)
    file = Path(asked["folder"]) / "by-hand.safetensors"
    step = restore(module, adam, file) if file.exists() else 0
    for epoch in range(asked["epochs"]):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch)).split(asked["batch"])
        for numbers in order:
            own = numbers[rank::size]
            adam.zero_grad(set_to_none=True)
            loss(wrapped(inputs[own]), targets[own]).backward()
            adam.step()
            step += 1
            if asked["every"] and step % asked["every"] == 0 and rank == 0:
                keep(module, adam, step, file)
    torch.distributed.destroy_process_group()


def work(request: str, tell: Callable[[str, float], None]) -> None:  # noqa: ARG001
    """Train as a rank of our launcher."""
    from mainspring.training.distributed.ports import BEATS
    from mainspring.training.distribution import Distributed
    from mainspring.training.loop.beats import Heart
    from mainspring.training.loop.launch import Launch, launching

    asked = json.loads(request)
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    folder = Path(asked["folder"])
    with launching(Launch(Distributed(), folder / "kept", Heart(folder / BEATS.format(rank)), attempt)):
        by_loop(asked, rank, attempt)


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    by_hand(given) if sys.argv[1] == "by-hand" else by_loop(given, 0, 0)
