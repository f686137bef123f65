"""What does our torch loop cost beyond one written by hand, and what does a checkpoint?

`ms.fit_torch`, which looks at every loss, watches for signals and, in half of the cases, keeps checkpoints, against the
loop by hand as the floor, and against Lightning. Each takes turns with the others; the best turn counts, on one thread,
by the clock and by the processor's time, which a machine that does something else too disturbs less. Checkpoints are
due every second, but ours take 2 % of the time at most; the one at the end is always written and waited for, so that
short turns cost more. Of one checkpoint two times are taken: until it is on the disk, and what the training waits for
where the rest is done beside its next steps. Lightning has its own environment: `python bench/peers.py lightning`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import train_side as side
from environments import PEERS
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.generators import generator_states
from mainspring.training.loop.writing import Writer
from report import Case, report

LIGHTNING = PEERS / "lightning" / "bin" / "python"
ABSENT = "not installed: python bench/peers.py lightning"


class Lightning:
    """Its process, which trains when asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(LIGHTNING), str(Path(__file__).with_name("train_side.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def timed(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def both(action: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor."""
    begun, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - begun, time.process_time() - used


def ours(case: str, inputs: Any, targets: Any, steps: int, folder: Path | None) -> tuple[float, float]:
    module = side.network(case)
    optimiser = torch.optim.Adam(module.parameters(), lr=side.RATE)
    settings: dict[str, Any] = {"epochs": side.epochs_of(steps), "batch_size": side.BATCH, "optimiser": optimiser}
    kept = {"checkpoints": folder, "checkpoint_every_s": side.CHECKPOINT_EVERY_S}
    return both(lambda: fit_torch(module, (inputs, targets), side.LOSS, **settings, **kept))


def loops(case: str, steps: int, turns: int, peer: Lightning | None) -> list[Case]:
    inputs, targets = side.rows(case)
    done = side.epochs_of(steps) * -(-side.ROWS // side.BATCH)
    best: dict[str, float] = {}

    def note(name: str, took: Sequence[float]) -> None:
        for of, seconds in zip(("", " cpu"), took, strict=True):
            best[name + of] = max(best.get(name + of, 0.0), done / seconds)

    side.by_hand(side.network(case), inputs, targets, 1)
    for _ in range(turns):
        module = side.network(case)
        note("hand", both(lambda module=module: side.by_hand(module, inputs, targets, side.epochs_of(steps))))
        note("ours", ours(case, inputs, targets, steps, None))
        with tempfile.TemporaryDirectory() as folder:
            note("ours kept", ours(case, inputs, targets, steps, Path(folder)))
        if peer is not None:
            note("peer", peer.ask(case=case, steps=steps, folder=None))
            with tempfile.TemporaryDirectory() as folder:
                note("peer kept", peer.ask(case=case, steps=steps, folder=folder))
    notes = {} if peer else {"Lightning": ABSENT}
    rounded = {name: round(value, 1) for name, value in best.items()}
    return [
        Case(f"{case}{said}", unit, rounded[f"ours{kept}{of}"], rounded[f"hand{of}"],
             {"Lightning": rounded.get(f"peer{kept}{of}")}, notes, more_is_better=True)
        for of, unit in (("", "steps/s"), (" cpu", "steps/s of processor"))
        for kept, said in (("", ""), (" kept", ", checkpoints on"))
    ]  # fmt: skip


def checkpoint(case: str, turns: int, peer: Lightning | None) -> list[Case]:
    """One checkpoint of weights and Adam's tensors, ours synced to the disk and digested."""
    module = side.network(case)
    inputs, targets = side.rows(case)
    optimiser = torch.optim.Adam(module.parameters(), lr=side.RATE)
    side.LOSS(module(inputs[:9]), targets[:9]).backward()
    optimiser.step()
    state = {"module": dict(module.state_dict()), "optimiser": optimiser.state_dict()}
    best = {name: float("inf") for name in ("ours", "waited", "torch.save", "torch.save and fsync", "Lightning")}

    def saved(path: Path, *, synced: bool) -> None:
        with path.open("wb") as file:
            torch.save(state, file)
            if synced:
                file.flush()
                os.fsync(file.fileno())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = Checkpoints(folder / "ours", keep=1)
        writer = Writer(Checkpoints(folder / "ours beside", keep=1))
        for turn in range(turns):
            whole = {**state, "generators": generator_states()}
            found = {
                "ours": timed(lambda turn=turn, whole=whole: kept.write(Checkpoint(turn, whole))),
                "waited": timed(lambda turn=turn, whole=whole: writer.begin(Checkpoint(turn, whole))),
                "torch.save": timed(lambda turn=turn: saved(folder / f"a{turn}", synced=False)),
                "torch.save and fsync": timed(lambda turn=turn: saved(folder / f"b{turn}", synced=True)),
            }
            writer.settle()
            if peer is not None:
                found["Lightning"] = peer.ask(case=case, steps=1, folder=None, save=str(folder / "c.ckpt"))
            best = {each: min(best[each], found.get(each, best[each])) for each in best}
            for each in folder.glob("[ab]*"):
                each.unlink()
    megabytes = sum(each.numel() * each.element_size() for each in module.state_dict().values()) * 3 / 1e6
    ms = {each: round(1e3 * took, 2) if took < float("inf") else None for each, took in best.items()}
    waited, kept_ms = ms.pop("waited"), ms.pop("ours")
    notes = {"ours": "synced, with SHA-256; torch.save and Lightning pickle and do not sync"}
    if peer is None:
        notes["Lightning"] = ABSENT
    said = f"one checkpoint, {megabytes:.1f} MB"
    return [Case(f"{said}, until it is on the disk", "ms", kept_ms, ms["torch.save and fsync"], ms, notes),
            Case(f"{said}, what the training waits", "ms", waited, None, ms, notes)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long a turn of each takes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = Lightning() if LIGHTNING.exists() else None
    cases: list[Case] = []
    try:
        for case in side.CASES:
            rows = side.rows(case)
            epoch = timed(lambda case=case, rows=rows: side.by_hand(side.network(case), *rows, 2)) / 2
            steps = max(1, round(arguments.seconds / epoch)) * (side.ROWS // side.BATCH)
            cases += loops(case, steps, arguments.turns, peer)
        for case in side.CASES:
            cases += checkpoint(case, 3 * arguments.turns, peer)
    finally:
        if peer is not None:
            peer.close()
    report("train", cases)


if __name__ == "__main__":
    main()
