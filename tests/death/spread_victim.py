"""Ranks that store checkpoints together and are killed: run by test_spread_kill.py, not a test itself.

`python spread_victim.py RANKS FOLDER SPEC...` starts the ranks once for each SPEC. They read the newest checkpoint,
fail unless it is what was stored, and store those of the next four steps. `RANK#N` kills a rank at the N-th time that
it opens, makes, renames or removes something in FOLDER/checkpoints; `-` kills none. Printed is `SPEC EXIT`.

If FOLDER/address names a bucket, the checkpoints lie there, and the rank is killed at its N-th request: before it if
N is even, else after it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from loop_victim import arm

from kit import ranks
from kit.sharded_cases import laid_out, take_apart, whole
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.objects import ObjectShelf
from mainspring.training.loop.world import joined
from mainspring.training.loop.writing import Writer


class Dying:
    """obstore's functions, around one of whose requests this process dies."""

    def __init__(self, api: Any, at: int) -> None:
        self._api, self._at, self._requests = api, at, 0

    def __getattr__(self, name: str) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            self._requests += 1
            if self._requests == self._at and self._at % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            done = getattr(self._api, name)(*given, **named)
            if self._requests == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return called


def work(folder: Path, spec: str, layout: str = "shards") -> None:
    world = joined(torch.device("cpu"))
    laid_out(whole(0), layout, world)  # imports what a kill should not interrupt
    address = folder.with_name("address")
    place = ObjectShelf(address.read_text(), "ranks") if address.exists() else folder
    checkpoints = Checkpoints(place, keep=2, world=world.aside())
    rank, _, at = spec.partition("#")
    if at and int(rank) == world.rank:
        if isinstance(place, ObjectShelf):
            place._api = Dying(place._api, int(at))
        else:
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
