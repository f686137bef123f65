"""The networks and rows that bench/train.py trains, and the loop one would write by hand. Needs PyTorch only.

Run by the Python of `.venv-peers/lightning`, it is Lightning's side: a line of input is a JSON object with the name of
a case, the steps, and a folder for checkpoints or null; the answer, the seconds from the first step to the last, of the
clock and of the processor. With `"save": path` it answers how many seconds one checkpoint takes.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

BATCH, ROWS, RATE = 256, 16_384, 1e-3
# inputs, then the layers' widths
CASES = {"small, 24-64-64-1": (24, 64, 64), "large, 256-1024-1024-1": (256, 1024, 1024)}
CHECKPOINT_EVERY_S = 1.0
LOSS = torch.nn.functional.mse_loss


def network(case: str) -> Any:
    torch.manual_seed(0)
    widths = CASES[case]
    layers: list[Any] = []
    for wide, narrow in pairwise(widths):
        layers += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1))


def rows(case: str) -> tuple[Any, Any]:
    inputs = torch.randn(ROWS, CASES[case][0], generator=torch.Generator().manual_seed(1))
    return inputs, inputs[:, :4].sum(1, keepdim=True)


def epochs_of(steps: int) -> int:
    return max(1, steps * BATCH // ROWS)


def by_hand(module: Any, inputs: Any, targets: Any, epochs: int) -> None:
    """The loop: nothing is watched, nothing is kept."""
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE)
    module.train()
    for _ in range(epochs):
        for numbers in torch.randperm(len(inputs)).split(BATCH):
            optimiser.zero_grad()
            LOSS(module(inputs[numbers]), targets[numbers]).backward()
            optimiser.step()


def lightning_side() -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self, case: str) -> None:
            super().__init__()
            self.inner = network(case)

        def training_step(self, batch: Any, _number: int) -> Any:
            inputs, targets = batch
            return LOSS(self.inner(inputs), targets)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    class Watch(Callback):  # type: ignore[misc]
        took = (0.0, 0.0)

        def on_train_start(self, *_: Any) -> None:
            self.begun = time.perf_counter(), time.process_time()

        def on_train_end(self, *_: Any) -> None:
            self.took = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]

    def batches(case: str) -> Any:  # the quickest of its ways: a batch is one index, not rows put together
        data = TensorDataset(*rows(case))
        sampler = BatchSampler(RandomSampler(data), BATCH, drop_last=False)
        return DataLoader(data, sampler=sampler, batch_size=None)

    def turn(asked: dict[str, Any]) -> Any:
        watch = Watch()
        callbacks: list[Any] = [watch]
        if asked["folder"]:
            every = timedelta(seconds=CHECKPOINT_EVERY_S)
            callbacks.append(ModelCheckpoint(asked["folder"], train_time_interval=every, save_top_k=-1))
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs_of(asked["steps"]), logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=bool(asked["folder"]), callbacks=callbacks,
        )  # fmt: skip
        trainer.fit(Module(asked["case"]), batches(asked["case"]))
        if "save" in asked:
            begun = time.perf_counter()
            trainer.save_checkpoint(asked["save"])
            took = time.perf_counter() - begun
            Path(asked["save"]).unlink()
            return took
        return watch.took

    answers, sys.stdout = sys.stdout, sys.stderr  # it talks
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), flush=True, file=answers)


if __name__ == "__main__":
    import logging

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lightning_side()
