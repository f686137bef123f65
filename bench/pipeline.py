"""How much does a step of a pipeline cost, beside Prefect, Dagster and DBOS? And a graph of a thousand steps.

Steps do nothing, so that only the engine is measured: a chain, in which each step gets the result of the one before,
and a fan-out, whose results one step collects. Every engine keeps its state on disk, in SQLite, and its first run is
not counted, except of the thousand steps. Sides take turns; a figure is the median of the rounds. The floor is a round
trip to another process and a commit to disk for each step, one after the other: an engine that stores several in one
commit may be faster.

What differs: ours runs each step in a child process, used again, two at a time; Dagster's multiprocess executor starts
one for each step, so its graphs are smaller; Prefect and DBOS run steps in the process of the workflow, which a step
that crashes or never returns takes along. `python bench/peers.py prefect dagster dbos` makes the peers; one that is
missing is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from environments import PEERS, recorded
from report import Case, report

SIDE = Path(__file__).with_name("peer_pipeline.py")
PEERS_OF = ("dbos", "prefect", "dagster")
GRAPHS = {"chain": ("chain", 20), "fan-out": ("wide", 40), "thousand": ("wide", 1_000)}
FEWER = {("dagster", "chain"): 3, ("dagster", "fan-out"): 4, ("dagster", "thousand"): 0}
_LIMIT_S = 300


@dataclass(frozen=True)
class Measured:
    """One run of a graph: its time, and the processor time and memory of all of its processes."""

    seconds: float
    cpu_s: float
    megabytes: float
    steps: int


def measure(side: str, graph: str) -> Measured | str:
    """Return a side's figures for a graph, or the reason why there are none."""
    own = side in ("ours", "floor")
    if not own and not recorded(PEERS / side):
        return f"make bench-peers: python bench/peers.py {side}"
    shape, steps = GRAPHS[graph]
    steps = FEWER.get((side, graph), steps)
    if not steps:
        return "left out: it would take an hour"
    python = sys.executable if own else str(PEERS / side / "bin" / "python")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [python, str(SIDE), side, shape, str(steps), folder],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=SIDE.parent, start_new_session=True,
        )  # fmt: skip
        try:
            until, found, lines = time.monotonic() + _LIMIT_S, None, ["no output"]
            while found is None and process.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
                output.seek(0)
                lines = output.read().strip().splitlines() or lines
                found = next((json.loads(line) for line in lines if line.startswith('{"seconds"')), None)
            if found is None:
                return lines[-1][:200] if process.poll() is not None else f"longer than {_LIMIT_S} s"
            return Measured(**found, megabytes=_megabytes(process.pid), steps=steps)
        finally:  # with the server that it may have started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _megabytes(pid: int) -> float:
    """Return the memory of a process and all that it started; pages that several share count once."""
    import psutil

    found = 0.0
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.Error):
            full = each.memory_full_info()
            found += getattr(full, "pss", full.uss) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-thousand", action="store_true", help="leave out the graph of a thousand steps")
    parser.add_argument("--rounds", type=int, default=3, help="of the chain and the fan-out")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    arguments = parser.parse_args()
    sides = ("floor", "ours", *PEERS_OF)
    found: dict[tuple[str, str], list[Measured]] = {(side, graph): [] for side in sides for graph in GRAPHS}
    why: dict[str, dict[str, str]] = {graph: {} for graph in GRAPHS}
    for graph in GRAPHS:
        rounds = arguments.rounds if graph != "thousand" else 0 if arguments.no_thousand else 1
        for _ in range(rounds):
            for side in sides:
                if side in why[graph]:
                    continue
                one = measure(side, graph)
                if isinstance(one, str):
                    why[graph][side] = one
                else:
                    found[side, graph].append(one)
                print(f"{graph}, {side}: {one}", file=sys.stderr, flush=True)

    def case(name: str, graph: str, unit: str, figure: str, *, more: bool = False) -> Case:
        def of(side: str) -> float | None:
            numbers = [_figure(each, figure) for each in found[side, graph]]
            return float(f"{statistics.median(numbers):.3g}") if numbers else None

        floor = None if figure == "megabytes" else of("floor")
        return Case(name, unit, of("ours"), floor, {peer: of(peer) for peer in PEERS_OF}, why[graph], more)

    cases = [
        case("chain of 20", "chain", "ms/step", "ms"),
        case("fan-out of 40", "fan-out", "ms/step", "ms"),
        case("fan-out of 40", "fan-out", "steps/s", "rate", more=True),
        case("fan-out of 40, processor", "fan-out", "ms/step", "cpu"),
        case("fan-out of 40, memory", "fan-out", "MB", "megabytes"),
        case("graph of 1,000", "thousand", "s", "seconds"),
    ]
    report("pipeline", [each for each in cases if each.ours is not None], table=not arguments.json)


def _figure(one: Measured, figure: str) -> float:
    return {
        "ms": 1e3 * one.seconds / one.steps,
        "rate": one.steps / one.seconds,
        "cpu": 1e3 * one.cpu_s / one.steps,
        "megabytes": one.megabytes,
        "seconds": one.seconds,
    }[figure]


if __name__ == "__main__":
    main()
