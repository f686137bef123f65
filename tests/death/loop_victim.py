"""A process that trains a small network and is killed: run by test_loop_kill.py, not a test itself.

`python loop_victim.py FOLDER SPEC...` trains once for each SPEC, each in a forked child with the same checkpoint
folder, and prints how each ended: `SPEC EXIT CHECKPOINTS` and, where it finished, the step at which it began and the
digest of its weights. A child dies

* at `+SECONDS` by SIGKILL, so long after its start;
* at `#N` by SIGKILL, at the N-th time that it opens, makes, renames or removes something in FOLDER;
* at `~N` by SIGTERM, likewise;
* at `-` never.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mainspring.training.loop.checkpoints import SUFFIX
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.stopping import EarlyStopping

TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class Noisy(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows with noise of three generators: what a resumed training must draw again as it was."""

    def __init__(self, rows: int = 96) -> None:
        made = torch.Generator().manual_seed(1)
        self.X = torch.randn(rows, 5, generator=made)
        self.y = (self.X.sum(1, keepdim=True) > 0).float()

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        time.sleep(0.0001)  # so that there is a moment to be killed in
        noise = random.random() + float(np.random.normal()) + float(torch.randn(()))
        return self.X[number] + 0.05 * noise, self.y[number]


def train(folder: Path) -> tuple[int, str]:
    torch.manual_seed(5)
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
    )
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
    rows = Noisy()
    steps = []
    fit_torch(
        module,
        rows,
        torch.nn.functional.binary_cross_entropy_with_logits,
        optimiser=optimiser,
        validation=(rows.X, rows.y),
        stopping=EarlyStopping(3),
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=60),
        clip_norm=1.0,
        epochs=5,
        batch_size=9,  # the last batch of an epoch is smaller
        checkpoints=folder,
        checkpoint_every_steps=2,
        keep=2,
        progress=lambda what, _share: steps.append(what),
    )
    resumed = next((int(what.rpartition(" ")[2]) for what in steps if what.startswith("resumes")), 0)
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return resumed, digest.hexdigest()


def arm(spec: str, folder: Path) -> None:
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event in TOUCHES and str(folder) in str(arguments[0]):
            touched += 1
            if touched == int(spec[1:]):
                os.kill(os.getpid(), signal.SIGKILL if spec[0] == "#" else signal.SIGTERM)

    if spec[0] in "#~":
        sys.addaudithook(hook)
    if spec[0] == "+":
        timer = threading.Timer(float(spec[1:]), lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


def main(train: Callable[[Path], tuple[int, str]] = train) -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # imports what each child would import
    for spec in sys.argv[2:]:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            arm(spec, folder)
            try:
                resumed, digest = train(folder)
                os.write(tell, f"{resumed} {digest}".encode())
            except Interrupted:
                os._exit(30)
            os._exit(0)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        said = os.read(told, 1000).decode()
        os.close(told)
        left = sum(1 for _ in folder.rglob(f"0*{SUFFIX}"))
        print(spec, os.waitstatus_to_exitcode(status), left, said, flush=True)


if __name__ == "__main__":
    main()
