"""The training of bench/distributed.py on Ray: run by the environment of the peer.

python bench/distributed_ray.py ours|train REQUEST

`train` is Ray Train, `ours` our runner on a Ray that is started here. With a kill in the request, a worker dies once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

import distributed_side


def worker(asked: dict[str, Any]) -> None:
    """Train as Ray's guide of PyTorch does, with a checkpoint reported every few steps."""
    torch.set_num_threads(1)
    folder, rank = Path(asked["folder"]), train.get_context().get_world_rank()
    module = prepare_model(distributed_side.network(torch))
    adam = torch.optim.Adam(module.parameters())
    inputs, targets = distributed_side.rows(torch)
    before, step, began = train.get_checkpoint(), 0, 0.0
    again = (folder / "killed").exists()
    if before:
        with before.as_directory() as kept:
            step = distributed_side.restore(module, adam, Path(kept) / "state.safetensors")
    for epoch in range(asked["epochs"]):
        order = torch.randperm(distributed_side.ROWS, generator=torch.Generator().manual_seed(epoch))
        for numbers in order.split(asked["batch"]):
            own = numbers[rank::2]
            adam.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(module(inputs[own]), targets[own])
            if again and rank == 0 and not (folder / "again").exists():
                (folder / "again").write_text(str(time.monotonic()))
            loss.backward()
            adam.step()
            step += 1
            if step == distributed_side.WARM:
                began = time.perf_counter()
            if step == asked["steps"] and rank == 0:
                took = time.perf_counter() - began
                (folder / "seconds").write_text(str(took / (step - distributed_side.WARM)))
            if step == asked["kill"] and rank == 1 and not again:
                (folder / "killed").write_text(str(time.monotonic()))
                os.kill(os.getpid(), signal.SIGKILL)
            if asked["every"] and step % asked["every"] == 0:
                _report(module, adam, step, rank)


def _report(module: Any, adam: Any, step: int, rank: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        if rank == 0:
            distributed_side.keep(module, adam, step, Path(made) / "state.safetensors")
        train.report({"step": step}, checkpoint=Checkpoint.from_directory(made) if rank == 0 else None)


def ours(asked: dict[str, Any]) -> None:
    """Train with our launcher."""
    from mainspring.deploy.adapters.ray_ranks import RayRanks
    from mainspring.training.distributed.ports import Job
    from mainspring.training.distribution import Distributed

    folder = Path(asked["folder"])
    job = Job("bench", distributed_side.__name__, json.dumps(asked), folder, Distributed(processes=2))
    for _ in RayRanks("").run(job, lambda: 0):
        pass


def ray_train(asked: dict[str, Any]) -> None:
    """Train with Ray Train.

    Ray runs workers at niceness 15: beside any other process of the machine they hardly come through their imports.
    """
    settings = {"worker_niceness": 0}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=settings)
    TorchTrainer(
        worker, train_loop_config=asked, scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            storage_path=str(Path(asked["folder"]) / "ray"), failure_config=FailureConfig(max_failures=1),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    ).fit()  # fmt: skip


if __name__ == "__main__":
    (ours if sys.argv[1] == "ours" else ray_train)(json.loads(sys.argv[2]))
