"""How much does a step of a pipeline cost, beside Prefect, Dagster and DBOS? And a graph of a thousand steps.

Steps do nothing, so that only the engine is measured: a chain, in which each step gets the result of the one before,
and a fan-out, whose results one step collects. Every engine keeps its state on disk, in SQLite, and its first run is
not counted, except of the thousand steps. What differs: ours runs each step in a child process, used again, two at
a time; Dagster's multiprocess executor starts one for each step; Prefect and DBOS run steps in the process of the
workflow, which a step that crashes or never returns takes along. `python bench/peers.py prefect dagster dbos` makes the
peers; one that is missing is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from environments import PEERS, recorded
from report import Case, report

HERE = Path(__file__).parent
PEERS_OF = ("prefect", "dagster", "dbos")
CHAIN, WIDE, THOUSAND = 20, 40, 1_000
_LIMIT_S = 300
MODULE = """
import mainspring as ms


@ms.step
def first():
    return 0


@ms.step
def add(number):
    return number + 1


@ms.step
def total(numbers):
    return sum(numbers)


@ms.pipeline
def warm():
    add(first())


@ms.pipeline
def chain():
    number = first()
    for _ in range({chain} - 1):
        number = add(number)
    return number


@ms.pipeline
def wide():
    return total([add(each) for each in range({wide})])


@ms.pipeline
def thousand():
    numbers = [add(each) for each in range({thousand} - 1)]
    return total(numbers)
"""


def ours(folder: Path, names: tuple[str, ...]) -> dict[str, float]:
    """Return seconds by pipeline, with the store on disk and steps in child processes, as a worker runs them."""
    import threading

    from mainspring.jobs.model import ENDED, Status
    from mainspring.operations.jobs.work_loop import working
    from mainspring.operations.pipelines import control
    from mainspring.project import open_project
    from mainspring.project.settings import load_settings

    (folder / "steps.py").write_text(MODULE.format(chain=CHAIN, wide=WIDE, thousand=THOUSAND))
    (folder / "mainspring.toml").write_text('name = "bench"\nmodules = ["steps"]\n')
    project = open_project(load_settings(folder, environment={}))
    found = {}
    with working(project, threading.Event()):
        for name in ("warm", *names):
            run = control.start(project, name).id
            before = time.perf_counter()
            while control.find_run(project, run).status not in ENDED:
                time.sleep(0.05)
            found[name] = time.perf_counter() - before
            assert control.find_run(project, run).status is Status.DONE
    project.close()
    return found


def peer(name: str, shape: str, steps: int) -> float | str:
    """Return a peer's seconds for a graph, or the reason why there are none."""
    if not recorded(PEERS / name):
        return f"make bench-peers: python bench/peers.py {name}"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command = [str(PEERS / name / "bin" / "python"), str(HERE / "peer_pipeline.py"), name, shape, str(steps)]
        process = subprocess.Popen([*command, folder], stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"longer than {_LIMIT_S} s"
        finally:  # with the server that it may have started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        lines = output.read().strip().splitlines() or ["no output"]
    if code:
        return lines[-1][:200]
    return float(json.loads(next(line for line in lines if line.startswith('{"seconds"')))["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-thousand", action="store_true", help="leave out the graph of a thousand steps")
    arguments = parser.parse_args()
    graphs = {"chain": CHAIN, "wide": WIDE} | ({} if arguments.no_thousand else {"thousand": THOUSAND})
    with tempfile.TemporaryDirectory() as folder:
        measured = ours(Path(folder), tuple(graphs))
    cases = []
    for name, steps in graphs.items():
        shape = "chain" if name == "chain" else "wide"
        sides = {each: peer(each, shape, steps) for each in PEERS_OF}
        numbers = {
            each: round(1e3 * took / steps, 1) if isinstance(took, float) else None for each, took in sides.items()
        }
        notes = {each: took for each, took in sides.items() if isinstance(took, str)}
        took = measured[name]
        notes["ours"] = f"{steps / took:.0f} steps a second in {name}" if name != "thousand" else f"{took:.1f} s in all"
        cases.append(Case(f"{name}, {steps:,} steps", "ms/step", round(1e3 * took / steps, 1), None, numbers, notes))
    report("pipeline", cases)


if __name__ == "__main__":
    main()
