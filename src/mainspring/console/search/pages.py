"""The page of a hyperparameter search: its view model and its route."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.console.runs.comparison import address
from mainspring.console.runs.table import state_of
from mainspring.console.search.picture import over_trials, slices, ticks
from mainspring.console.search.trials import Found, Tried, found
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.operations.search.searching import SEARCH, SEARCH_RUN
from mainspring.project import Project
from mainspring.registry.searching import Column, Condition, Kind, RunQuery, RunRow
from mainspring.training.search.trials import COMPLETE

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
_STATES = {"complete": "fresh", "pruned": "drifted", "failed": "late", "lost": "empty", "running": "live"}
PAGE, COLUMNS, COMPARED, USED = 25, 8, 10, 20
SORTS = ("best", "number", "seconds")


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One search. `rows` are some of its trials, from the `begin`-th in the requested order."""

    run: RunRow
    found: Found
    best: Tried | None
    counts: Mapping[str, int]
    params: tuple[str, ...]  # most important first
    fixed: Mapping[str, object]  # parameters that are the same in all trials
    rows: tuple[Tried, ...]
    sort: str
    begin: int
    next: int | None
    compared: str  # address of a comparison of the best trials; empty with fewer than two
    registered: bool  # whether its model has a page
    trainings: tuple[RunRow, ...]  # training runs with its parameters

    @property
    def columns(self) -> tuple[str, ...]:
        """The parameters that have a column in the table."""
        return self.params[:COLUMNS]


def search_page(project: Project, run_id: str, *, sort: str = "best", begin: int = 0) -> SearchPage:
    """Return the page of a search.

    Raises:
        NotFound: There is no such run, or it is not a search.
        Invalid: The trials cannot be sorted by that.
    """
    if sort not in SORTS:
        raise Invalid(f"Trials cannot be sorted by {sort[:80]!r}.", fix=f"use one of {', '.join(SORTS)}.")
    run = project.run_search.get([run_id])[0]
    if SEARCH not in run.tags:
        raise NotFound(f"The run {run_id!r} is not a hyperparameter search.", fix=f"see /runs/{run_id}.")
    tried = found(project, run)
    names = sorted({name for trial in tried.trials for name in trial.params})
    differing = [name for name in names if len({repr(trial.params.get(name)) for trial in tried.trials}) > 1]
    ordered = sorted(tried.trials, key=_order(sort, tried.maximize))
    rows = tuple(ordered[begin : begin + PAGE])
    best = sorted((trial for trial in tried.trials if trial.value is not None), key=_order("best", tried.maximize))
    top = [trial.run_id for trial in best if trial.run_id][:COMPARED]
    return SearchPage(
        run=run,
        found=tried,
        best=tried.best,
        counts=tried.counted(),
        params=tuple(sorted(differing, key=lambda name: (-tried.importance.get(name, 0.0), name))),
        fixed={name: tried.trials[0].params[name] for name in names if name not in differing},
        rows=rows,
        sort=sort,
        begin=begin,
        next=begin + len(rows) if begin + len(rows) < len(ordered) else None,
        compared=address(top) if len(top) > 1 else "",
        registered=run.model in project.definitions.models or bool(project.versions.all(run.model)),
        trainings=_trainings(project, run),
    )


def _order(sort: str, maximize: bool) -> Callable[[Tried], tuple[bool, float, int]]:
    """Return a sort key; trials without a value come last."""
    sign = -1.0 if maximize else 1.0

    def key(trial: Tried) -> tuple[bool, float, int]:
        if sort == "number":
            return False, 0.0, trial.number
        if sort == "seconds":
            return trial.seconds is None, -(trial.seconds or 0.0), trial.number
        told = trial.value if trial.state == COMPLETE else None
        return told is None, sign * (told or 0.0), trial.number

    return key


def _trainings(project: Project, run: RunRow) -> tuple[RunRow, ...]:
    taken = Condition(Column(Kind.TAG, SEARCH_RUN), "=", run.id)
    return project.run_search.search(RunQuery((taken,), limit=USED)).runs


def add_search_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the route `/runs/{run_id}/search`."""

    @router.get("/runs/{run_id}/search")
    def show_search(request: Request, run_id: str, sort: str = "best", begin: Begin = 0) -> Response:
        view = search_page(project, check_id(run_id, "run"), sort=sort, begin=begin)
        content: dict[str, Any] = {
            "view": view,
            "over": over_trials(view.found),
            "ticks": ticks(view.found),
            "slices": slices(view.found, view.params),
            "trial_states": _STATES,
            "state_of": state_of,
            "section": "runs",
        }
        return page("search.html", {**frame(request), **content})
