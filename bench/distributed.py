"""Two processes that train a network, against one with half of the batch, and against a script without us.

python bench/distributed.py [--rounds 3] [--seconds]

**Scaling**: seconds of a step of two processes with a batch, and of one process with half of it, each with one thread;
the efficiency is the second through the first. Sides are `ms.fit_torch` under our launcher, and a loop by hand with
DistributedDataParallel under torchrun. Where the environment of Ray is made (`python bench/peers.py ray`), our runner
on Ray and Ray Train are sides too. They run in turns, and the best round of each counts.

**Recovery**: seconds from the SIGKILL of a rank until the first step of all ranks afterwards, with a checkpoint every
ten steps, of the same sides.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import distributed_side
from environments import PEERS
from mainspring.core.own_process import python_path
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.ports import Job
from mainspring.training.distribution import Distributed

SIDE = Path(distributed_side.__file__)
RAY = SIDE.with_name("distributed_ray.py")
PYTHON_OF_RAY = PEERS / "ray" / "bin" / "python"
BATCH, EPOCHS = 512, 3
TARGET = 0.97
_LONGEST_S = 300.0  # of one side
# torchrun: another store for each attempt. In the usual one restarted ranks find addresses of dead ones (torch 2.13).
_OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def asked(folder: Path, *, batch: int = BATCH, kill: int = 0, every: int = 0) -> dict[str, Any]:
    """What a side is asked: the number of steps of its measurement is that of its training."""
    steps = EPOCHS * (distributed_side.ROWS // batch)
    return {"folder": str(folder), "batch": batch, "epochs": EPOCHS, "steps": steps, "kill": kill, "every": every}


def command(arguments: list[str]) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        **_OWN_STORE,
    }
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            ended = process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # which ends its ranks too
            raise
    if ended:
        raise subprocess.CalledProcessError(ended, arguments)


def ours(request: dict[str, Any]) -> None:
    folder = Path(request["folder"])
    job = Job("bench", "distributed_side", json.dumps(request), folder, Distributed(processes=2))
    for _ in LocalRunner().run(job, lambda: 0):
        pass


def torchrun(request: dict[str, Any]) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command([*launch, str(SIDE), "by-hand", json.dumps(request)])


def alone(request: dict[str, Any]) -> None:
    command([sys.executable, str(SIDE), "alone", json.dumps(request)])


def ours_on_ray(request: dict[str, Any]) -> None:
    command([str(PYTHON_OF_RAY), str(RAY), "ours", json.dumps(request)])


def ray_train(request: dict[str, Any]) -> None:
    command([str(PYTHON_OF_RAY), str(RAY), "train", json.dumps(request)])


def step_s(side: Any, batch: int) -> float:
    """Seconds of a step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        try:
            side(asked(Path(made), batch=batch))
        except subprocess.TimeoutExpired:
            return math.inf
        return float((Path(made) / "seconds").read_text())


def recovery_s(side: Any) -> float:
    """Seconds from the kill of a rank until all train again."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        try:
            side(asked(Path(made), kill=25, every=10))
        except subprocess.TimeoutExpired:
            return math.inf
        return float((Path(made) / "again").read_text()) - float((Path(made) / "killed").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    on_ray = {"ours on Ray": ours_on_ray, "Ray Train": ray_train} if PYTHON_OF_RAY.exists() else {}
    sides = {"one process, half of the batch": (alone, BATCH // 2), "torchrun, by hand": (torchrun, BATCH),
             "ours": (ours, BATCH), **{name: (side, BATCH) for name, side in on_ray.items()}}  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (side, batch) in sides.items():
            found[name].append(step_s(side, batch))
    best = {name: min(times) for name, times in found.items()}
    one, bare, own, *_ = best.values()
    print(
        f"seconds of a step: {json.dumps({name: [round(each, 5) for each in times] for name, times in found.items()})}"
    )
    efficiency = [f"{name} {one / each:.2f}" for name, each in best.items()][1:]
    print(f"efficiency of two processes: {', '.join(efficiency)}")
    print(f"speed beside torchrun by hand: {bare / own:.3f} (at least {TARGET})")
    recovering = {"ours": ours, "torchrun": torchrun, **on_ray}
    for name, side in recovering.items():
        seconds = [recovery_s(side) for _ in range(rounds)]
        print(f"recovery, {name}: median {statistics.median(seconds):.2f} s of {[round(each, 2) for each in seconds]}")
    return 0 if bare / own >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
