"""Ranks that store checkpoints together and are killed: run by test_spread_kill.py, not a test itself.

`python spread_victim.py RANKS FOLDER SPEC...` starts the ranks once for each SPEC. They read the newest checkpoint,
fail unless it is what was stored, and store those of the next four steps. `RANK#N` kills a rank at the N-th time that
it opens, makes, renames or removes something in FOLDER/checkpoints; `-` kills none. Printed is `SPEC EXIT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from loop_victim import arm

from kit import ranks
from kit.sharded_cases import laid_out, take_apart, whole
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.world import joined
from mainspring.training.loop.writing import Writer


def work(folder: Path, spec: str, layout: str = "shards") -> None:
    world = joined(torch.device("cpu"))
    laid_out(whole(0), layout, world)  # imports what a kill should not interrupt
    checkpoints = Checkpoints(folder, keep=2, world=world.aside())
    rank, _, at = spec.partition("#")
    if at and int(rank) == world.rank:
        arm(f"#{at}", folder)
    writer = Writer(checkpoints)
    with checkpoints.hold(), writer.open():
        found = checkpoints.newest()
        step = 0 if found is None else found.step
        if found is not None:
            wanted = take_apart(whole(step))[1]
            assert all(torch.equal(each, wanted[name]) for name, each in take_apart(found.state)[1].items())
        for number in range(step + 1, step + 5):
            writer.begin(Checkpoint(number, laid_out(whole(number), layout, world), None))
            writer.settle()


def main(size: int, folder: Path, specs: list[str]) -> None:
    for spec in specs:
        ended: object = 0
        try:
            ranks.fork(size, folder, lambda spec=spec: work(folder / "checkpoints", spec))  # type: ignore[misc]
        except SystemExit as exit:
            ended = exit.code
        print(spec, ended, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
