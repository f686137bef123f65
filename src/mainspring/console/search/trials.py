"""Trials of a search, read without Optuna: from the file of a finished search, or from the runs of a running one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import NotFound
from mainspring.operations.search.searching import RESULT
from mainspring.project import Project
from mainspring.registry.searching import MOST_RUNS, PARENT, Column, Condition, Kind, Order, RunQuery, RunRow
from mainspring.stats.metrics import higher_is_better
from mainspring.training.search.trials import COMPLETE, FAILED, PRUNED, ended_of

RUNNING, LOST = "running", "lost"
STATES = (COMPLETE, PRUNED, FAILED, LOST, RUNNING)
_BEST, _IMPORTANCE = "best.", "importance."  # metrics of the search's run
_NAME = re.compile(r"trial (\d{1,9})")


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial. The process of a lost trial died, and its parameters were tried again."""

    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]
    run_id: str
    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Results of a search, running or finished. `importance` is each parameter's share; empty while it runs."""

    metric: str
    maximize: bool
    trials: tuple[Tried, ...]  # by number
    importance: Mapping[str, float]
    left_out: bool  # maximum number of trials that are read of a running search

    @property
    def best(self) -> Tried | None:
        """The best completed trial; among equals the first."""
        told = [trial for trial in self.trials if trial.state == COMPLETE and trial.value is not None]
        sign = 1 if self.maximize else -1
        return max(told, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def counted(self) -> dict[str, int]:
        """Return the number of trials in each state that occurs."""
        counts = {state: sum(trial.state == state for trial in self.trials) for state in STATES}
        return {state: count for state, count in counts.items() if count}


class _KeptTrial(msgspec.Struct):
    number: int
    state: str
    params: dict[str, Any]
    run_id: str = ""
    value: float | None = None
    reason: str = ""
    seconds: float | None = None


class _Kept(msgspec.Struct):
    """Content of a finished search's file; see `operations.search.searching.SearchReport`."""

    metric: str
    direction: str
    trials: list[_KeptTrial]
    importance: dict[str, float] = {}


def found(project: Project, run: RunRow) -> Found:
    """Return the results of a run's search."""
    kept = _kept(project, run)
    if kept is None:
        return _from_runs(project, run)
    trials = [
        Tried(each.number, each.state, _finite(each.value), each.params, each.run_id, each.seconds, each.reason)
        for each in kept.trials
    ]
    return Found(kept.metric, kept.direction == "maximize", _ordered(trials), kept.importance, False)


def _kept(project: Project, run: RunRow) -> _Kept | None:
    try:
        return msgspec.json.decode(project.tracking.artefact(run.id, RESULT), type=_Kept)
    except (NotFound, msgspec.DecodeError):  # it is running, it died, or the file is not ours
        return None


def _from_runs(project: Project, run: RunRow) -> Found:
    parts = Condition(Column(Kind.TAG, PARENT), "=", run.id)
    page = project.run_search.search(RunQuery((parts,), order=Order(descending=False), limit=MOST_RUNS))
    rows = project.run_search.get([each.id for each in page.runs]) if page.runs else []
    trials = [_of_run(row, place) for place, row in enumerate(rows)]
    importance = {
        name.removeprefix(_IMPORTANCE): value for name, value in run.metrics.items() if name.startswith(_IMPORTANCE)
    }
    metric, declared = _metric(project, run), project.definitions.models.get(run.model)
    own = () if declared is None else declared.metrics
    return Found(metric, higher_is_better(metric, own) is not False, _ordered(trials), importance, bool(page.next))


def _metric(project: Project, run: RunRow) -> str:
    told = next((name.removeprefix(_BEST) for name in sorted(run.metrics) if name.startswith(_BEST)), "")
    declared = project.definitions.models.get(run.model)
    return told or (declared.search.metric if declared and declared.search else "")


def _of_run(row: RunRow, place: int) -> Tried:
    name = _NAME.fullmatch(row.name)
    ended = ended_of(row.tags, row.status)
    state = ended.state if ended else RUNNING if row.status == "RUNNING" else LOST
    value = ended.value if ended and ended.state == COMPLETE else None
    params = {key: _read(text) for key, text in sorted(row.params.items())}
    seconds = None if row.duration is None else row.duration / 1e6
    number = int(name[1]) if name else place
    return Tried(number, state, _finite(value), params, row.id, seconds, ended.reason if ended else "")


def _read(text: str) -> Any:
    """Return a parameter's value before the run stored it as text, if it can be parsed."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _ordered(trials: list[Tried]) -> tuple[Tried, ...]:
    return tuple(sorted(trials, key=lambda trial: trial.number))
