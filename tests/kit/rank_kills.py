"""Kills of ranks at named moments, and what a training loses by them: run by test_ranks_kill.py, or by itself.

python tests/kit/rank_kills.py [--processes 2 3 4] [--deed kill|stop|loop]

prints a table: for each moment and number of processes the steps that were done again, and the seconds from the deed
to the next step. All deeds of a row's layout happen in one training, one after another, and its weights must be those
of an undisturbed one, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mainspring.core.own_process import python_path

VICTIM = Path(__file__).parents[1] / "death" / "ranks_victim.py"
PROGRAM = (sys.executable, str(VICTIM))
LATE = 26  # step
STEPS = 30  # five epochs of six, with a checkpoint every two
MOMENTS = {
    "first": "before the first checkpoint",
    "between": "between two checkpoints",
    "part": "in the write of its part of a checkpoint",
    "commit": "before the commit of a checkpoint",
    "committed": "right after a commit",
    "late": "in a late step, with a full disk of a rank since its first part",
    "end": "after the last step",
}
LAYOUTS = ("copies", "shards")
SILENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Loss:
    """What a deed at a moment cost."""

    moment: str
    rank: int
    steps: int  # that were done again
    seconds: float  # from the deed to the next step of the first rank; 0 if there was none left


def launched(
    folder: Path, size: int, layout: str, *deeds: str, silence_s: float = 30.0, program: Sequence[str] = PROGRAM
) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(VICTIM.parents[1]), python_path()])
    }  # fmt: skip
    command = [*program, str(folder), str(size), layout, str(silence_s), *deeds]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def trained(
    folder: Path, size: int, layout: str, *deeds: str, silence_s: float = 30.0, program: Sequence[str] = PROGRAM
) -> list[str]:
    """Train to the end; return the weights of each rank.

    Raises:
        RuntimeError: The launcher failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with launched(folder, size, layout, *deeds, silence_s=silence_s, program=program) as process:
        said, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"It ended with {process.returncode}: {said}")
    return [(folder / f"weights-{rank}.json").read_text() for rank in range(size)]


def moments_of(layout: str) -> list[str]:
    """Return the moments of a layout: of copies as small as these, the first rank alone writes."""
    return [each for each in MOMENTS if layout == "shards" or each not in ("part", "late")]


def deeds(size: int, layout: str, word: str, chance: random.Random) -> list[str]:
    """Return a deed at each moment, one in each attempt."""
    moments = moments_of(layout)
    ranks = {"commit": 0, "committed": 0}  # the first rank commits
    if word == "loop":
        ranks["end"] = size - 1  # the first one may take its time
    full = [f"{moments.index('late')}:{size - 1}:part:full"] if "late" in moments else []
    return [*(f"{number}:{ranks.get(moment, chance.randrange(size))}:{moment}:{word}"
              for number, moment in enumerate(moments)), *full]  # fmt: skip


def losses(folder: Path) -> list[Loss]:
    """Return what each deed cost, from what the ranks noted."""
    noted = [json.loads(line) for line in (folder / "noted.jsonl").read_text().splitlines()]
    found = []
    for deed in [each for each in noted if "deed" in each]:
        done = max((each.get("step", 0) for each in noted if each["attempt"] == deed["attempt"]), default=0)
        after = [each for each in noted if each["attempt"] == deed["attempt"] + 1 and each["rank"] == 0]
        first = next((each for each in after if "resumed" in each), None)
        steps = 0 if first is None else max(0, done - first["resumed"])
        found.append(Loss(deed["moment"], deed["rank"], steps, 0.0 if first is None else first["at"] - deed["at"]))
    return found


def disturbed(
    folder: Path, size: int, layout: str, word: str, chance: random.Random, program: Sequence[str] = PROGRAM
) -> list[Loss]:
    """Train once undisturbed and once with a deed at each moment; return what each cost.

    Raises:
        AssertionError: The weights differ, or a deed was not done.
    """
    silence_s = 30.0 if word == "kill" else SILENCE_S
    wanted = trained(folder / "undisturbed", size, layout, program=program)
    asked = deeds(size, layout, word, chance)
    found = trained(folder / "disturbed", size, layout, *asked, silence_s=silence_s, program=program)
    if len({*found, *wanted}) != 1:
        raise AssertionError(f"The weights differ after {asked}.")
    seen = losses(folder / "disturbed")
    if [each.moment for each in seen] != [each.split(":")[2] for each in asked if not each.endswith(":full")]:
        raise AssertionError(f"Of {asked} only {seen} was done.")
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--deed", choices=["kill", "stop", "loop"], default="kill")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    print(f"| {STEPS} steps, a checkpoint every two | {' | '.join(f'{size} processes' for size in chosen.processes)} |")
    print("|---" * (1 + len(chosen.processes)) + "|")
    for layout in LAYOUTS:
        cells: dict[str, list[str]] = {}
        for size in chosen.processes:
            with tempfile.TemporaryDirectory() as folder:
                for each in disturbed(Path(folder), size, layout, chosen.deed, chance):
                    after = f"{each.seconds:.1f} s" if each.seconds else "no step was left"
                    steps = f"{each.steps} step{'' if each.steps == 1 else 's'}"
                    cells.setdefault(each.moment, []).append(f"rank {each.rank}: {steps}, {after}")
        for moment, row in cells.items():
            print(f"| {layout}: {MOMENTS[moment]} | {' | '.join(row)} |", flush=True)
    print("\nAll weights are bit for bit those of an undisturbed training.")


if __name__ == "__main__":
    main()
