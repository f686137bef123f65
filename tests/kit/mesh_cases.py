"""Trainings on meshes of processes: run by test_meshes.py in each rank, not a test itself.

`python mesh_cases.py RANKS FOLDER CASE...`, where a case is `NAME:shard=2,tensor=2`: a case of `parallel_cases`, and
axes of the mesh.
`dry-stopped` and `dry-resumed` drop no units. `kept-NAME:AXES:N` is a case with checkpoints that stops after N calls of
its loss; 0: never.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor.parallel

from kit import parallel_cases, ranks
from mainspring.training.distribution import Distributed
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.world import launched


def declared(text: str) -> Distributed:
    given = {key: value for key, _, value in (each.partition("=") for each in text.split(",")) if key}
    return Distributed(
        shard=int(given.get("shard", 1)), tensor=int(given.get("tensor", 1)), pipeline=int(given.get("pipeline", 1)),
        checkpoint_activations="again" in given,
    )  # fmt: skip


def settings(name: str) -> dict[str, Any]:
    """Return the settings of a case by which one process trains alike: a pipeline has a batch in parts."""
    if "pipeline" not in name:
        return {}
    return {"batch_size": 15, "accumulate": 2} if name.startswith("convolutional") else {"accumulate": 4}


def one(folder: Path, name: str) -> Any:
    case, _, text = name.partition(":")
    act = case.removeprefix("dry-")
    if act in ("stopped", "resumed", "undisturbed"):
        at = 9 if act == "stopped" and launched().rank == launched().size - 1 else None
        part = "dry" if act != case else "others" if act == "undisturbed" else "checkpoints"
        given = {"accumulate": 2, "dropout": 0.0 if act != case else 0.3}
        return parallel_cases.train_stopping(folder / text, at, part, distributed=declared(text), **given)
    if case.startswith("kept-"):
        axes, _, calls = text.partition(":")
        parallel_cases.STOP.at = int(calls)
        try:
            return parallel_cases.train(case.removeprefix("kept-"), distributed=declared(axes), **settings(name),
                                        checkpoints=folder / f"kept:{axes}")  # fmt: skip
        except Interrupted as stopped:
            return stopped.number
    return parallel_cases.train(case, distributed=declared(text), **settings(name))


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        torch.save(one(folder, name), folder / f"{name}-{launched().rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
