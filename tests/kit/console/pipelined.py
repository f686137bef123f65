"""Pipelines of a project with runs in every state: the steps run in this process, by the product's own handlers."""

from dataclasses import dataclass, replace
from pathlib import Path

from kit.console.flights import NOW, Project
from mainspring.core.time import MINUTE, SECOND, ManualClock
from mainspring.jobs.model import ENDED, Tick
from mainspring.jobs.runner import Runner
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.pipelines import control
from mainspring.operations.pipelines.names import step_log
from mainspring.operations.pipelines.triggers import pipeline_schedules
from mainspring.project.definitions.loading import load_definitions

LOG = "".join(f"line {number} of <b>load</b>\n" for number in range(400))
FLOWS = '''
import mainspring as ms


@ms.step(retries=0)
def load(days: int):
    return {"days": list(range(days)), "text": "<i>rows</i>"}


@ms.step(retries=0)
def fit(day: int, bad: int):
    if day == bad:
        raise ValueError(f"day {day} is <b>bad</b>")
    return {"day": day, "auc": 0.7 + day / 100}


@ms.step(cache=True, retries=0)
def choose(fits: list):
    return max(fits, key=lambda each: each["auc"])


@ms.step
def publish(best: dict):
    return best["day"]


@ms.step
def report(best: dict):
    return None


@ms.pipeline(every="1d", when=[ms.landed("orders")])
def nightly(days: int = 3, bad: int = -1, bar: float = 0.5):
    """Train on each day's <b>flights</b>."""
    loaded = load(days)
    best = choose(fit.map(loaded["days"], bad=bad))
    with ms.only_if(best["auc"] > bar), ms.approval("release"):
        done = publish(best)
    with ms.only_if(best["auc"] > 0.9):
        report(best)
    return done


@ms.pipeline(limit=None)
def chain(steps: int = 1):
    last = load(steps)
    for _ in range(7):
        last = publish(best=last)
    return last
'''


@dataclass(frozen=True)
class Pipelined:
    """The project, and the ids of runs of the pipeline nightly; `queued` is of chain."""

    project: Project
    done: str
    failed: str
    asking: str
    queued: str


def pipelined(folder: Path, **settings: object) -> Pipelined:
    """Return a project in this folder with its pipelines and runs."""
    (folder / "flows.py").write_text(FLOWS)
    wall = ManualClock(NOW - 60 * MINUTE)
    made = Project(wall=wall)
    project = Project(
        replace(made.settings, root=folder, modules=("flows",), state=folder / ".mainspring", **settings), wall=wall
    )
    project = project.having(definitions=load_definitions(project.settings), jobs=project.jobs, audit=project.audit)
    for schedule in pipeline_schedules(project):
        project.jobs.tick([Tick(schedule, NOW - 1)], NOW)
    done = _run(project, "nightly", approved=True)
    wall.advance(5 * MINUTE)
    failed = _run(project, "nightly", bad=1)
    wall.advance(5 * MINUTE)
    asking = _run(project, "nightly")
    log = step_log(project.settings.state, asking, "load")
    log.parent.mkdir(parents=True)
    log.write_text(LOG)
    wall.set(NOW)
    queued = control.start(project, "chain", by="ana").id
    return Pipelined(project, done, failed, asking, queued)


def _run(project: Project, name: str, *, approved: bool = False, **parameters: int) -> str:
    run = control.start(project, name, parameters, by="ana").id
    _work(project, run)
    if approved:
        control.approve(project, run, "release", by="bob")
        _work(project, run)
    return run


def _work(project: Project, run: str) -> None:
    """Do what is due, each job a second after the one before."""
    runner = Runner(project.jobs, handlers(project), project.wall, holder="kit")
    while control.find_run(project, run).status not in ENDED and runner.run_one() is not None:
        assert isinstance(project.wall, ManualClock)
        project.wall.advance(SECOND)
