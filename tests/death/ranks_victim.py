"""A launcher and its ranks, which are killed: run by test_ranks_kill.py and rank_kills.py, not a test itself.

`python ranks_victim.py FOLDER PROCESSES LAYOUT SILENCE_S DEED...` trains in FOLDER and prints the events. A layout is
`copies` or `shards`. A deed is `ATTEMPT:RANK:MOMENT:WORD`, done once: the moments are those of rank_kills.py, or
`each` step, the words those of the conformance suite, or `full` for no room on the rank's disk after its first part.
The ranks note in FOLDER/noted.jsonl which steps they do, and when.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from kit.full_disk import room
from kit.rank_kills import LATE, STEPS
from mainspring.core.environment import rank_variables
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.conformance import DEEDS
from mainspring.training.distributed.ports import BEATS, Job
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import Heart
from mainspring.training.loop.launch import Launch, launching
from mainspring.training.loop.shelf import FolderShelf
from mainspring.training.loop.world import World, launched


class Steered:
    """A rank of one attempt, which notes its steps, and does what it is asked at a moment."""

    def __init__(self, asked: dict[str, Any], world: World, tell: Callable[[str, float], None]) -> None:
        self._folder, self._world = Path(asked["folder"]), world
        self.attempt = int(rank_variables().get("TORCHELASTIC_RESTART_COUNT", "0"))
        mine = (self.attempt, world.rank)
        self._deeds = {moment: word for when, rank, moment, word in asked["deeds"] if (when, rank) == mine}
        self._tell = tell
        self.resumed = self.step = self._puts = 0

    def note(self, **what: Any) -> None:
        """Append a line to what all ranks note."""
        line = json.dumps({"attempt": self.attempt, "rank": self._world.rank, "at": time.monotonic(), **what})
        with suppress(OSError), (self._folder / "noted.jsonl").open("a") as file:  # the disk may be full
            file.write(f"{line}\n")

    def told(self, what: str, share: float) -> None:
        self._tell(what, share)
        if what.startswith("resumes from step "):
            self.resumed = self.step = int(what.rpartition(" ")[2])

    def at(self, moment: str) -> None:
        """Do what was asked at a moment."""
        word = self._deeds.get(moment)
        if word is not None and word != "full":
            if moment != "each":
                self.note(moment=moment, deed=word)
            DEEDS[word]()

    def stepped(self) -> None:
        """Note a step, in its middle."""
        self.step += 1
        if self.step == self.resumed + 1:
            self.note(step=self.step, resumed=self.resumed)
        else:
            self.note(step=self.step)
        self.at("each")
        if self.step == 1:
            self.at("first")
        if self.step % 2 and self.step > self.resumed + 3:
            self.at("between")
        if self.step == LATE:
            self.at("late")

    def around(self, put: Callable[..., Any]) -> Callable[..., Any]:
        """Return `FolderShelf.put` with the moments in it."""

        def steered(shelf: FolderShelf, name: str, write: Callable[[Path], Any], *, last: bool = False) -> Any:
            def written(path: Path) -> Any:
                self._puts += 1
                full = self._deeds.get("part") == "full" and self._puts > 1
                with room(100) if full else nullcontext():
                    done = write(path)
                self.at("commit" if last else "part")
                return done

            done = put(shelf, name, written, last=last)
            if last:
                self.at("committed")
            return done

        return steered


def work(request: str, tell: Callable[[str, float], None]) -> None:
    """Train as a rank."""
    import torch

    from mainspring.training.loop.fit import fit_torch

    asked, world = json.loads(request), launched()
    folder, size = Path(asked["folder"]), world.size
    steered = Steered(asked, world, tell)
    FolderShelf.put = steered.around(FolderShelf.put)  # type: ignore[method-assign]

    def loss(outputs: Any, targets: Any) -> Any:
        if torch.is_grad_enabled():
            steered.stepped()
        return torch.nn.functional.mse_loss(outputs, targets)

    torch.manual_seed(1)
    rows = torch.randn(48, 4)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    declared = Distributed(processes=size, shard=size if asked["layout"] == "shards" else 1)
    heart = Heart(folder / BEATS.format(world.rank))
    with launching(Launch(declared, folder / "checkpoints", heart, steered.attempt)):
        fit_torch(
            network, (rows, rows.sum(1, keepdim=True)), loss, optimiser=torch.optim.Adam(network.parameters(), 0.01),
            epochs=STEPS // 6, batch_size=8, checkpoint_every_steps=2, progress=steered.told,
        )  # fmt: skip
    steered.at("end")
    found = {name: weights.tolist() for name, weights in network.state_dict().items()}
    (folder / f"weights-{world.rank}.json").write_text(json.dumps(found))


def main() -> None:
    folder, size, layout, silence_s, *deeds = sys.argv[1:]
    parted = [each.split(":") for each in deeds]
    asked = {
        "folder": folder,
        "layout": layout,
        "deeds": [[int(attempt), int(rank), moment, word] for attempt, rank, moment, word in parted],
    }
    declared = Distributed(processes=int(size), restarts=20, silence_s=float(silence_s))
    job = Job("run", Path(__file__).stem, json.dumps(asked), Path(folder), declared)
    for event in LocalRunner().run(job, lambda: 0):
        print(event, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
