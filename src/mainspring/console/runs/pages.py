"""The pages of runs: the values of one run's page, and the routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.charts import Chart
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, form
from mainspring.console.permissions import may, seen_models
from mainspring.console.render import page
from mainspring.console.runs.charts import looked_at, one_chart
from mainspring.console.runs.comparison import MOST, address, comparison, parallel_picture
from mainspring.console.runs.table import MOST_OPEN, Asked, run_table, state_of
from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.ids import check_id
from mainspring.operations.runs import LONGEST_NAME, LONGEST_NOTE, SYSTEM, describe_run, note_of
from mainspring.operations.search.searching import SEARCH
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.registry.runs import ERROR, NOTE
from mainspring.registry.searching import PARENT, STATUSES, Axis, Column, Condition, Kind, RunQuery, RunRow
from mainspring.security.model import Action

Several = Annotated[list[str] | None, Query()]
_LONGEST = 2000
LISTED, DRAWN, TRIED, NESTED = 200, 8, 16, 50
_APART = (ERROR, NOTE)  # tags that are shown separately
_PROCESS = ("mainspring.host", "mainspring.boot", "mainspring.pid", "mainspring.process_started")


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. `metrics` are those that match the search, at most `LISTED` of `of_metrics`."""

    run: RunRow
    parent: RunRow | None
    nested: tuple[RunRow, ...]
    more_nested: bool
    metrics: Mapping[str, float]
    of_metrics: int
    find: str
    charts: tuple[Chart, ...]
    system: tuple[Chart, ...]
    system_metrics: int
    tags: Mapping[str, str]
    process: Mapping[str, str]
    artefacts: Mapping[str, int]  # name -> bytes
    artefacts_problem: str | None
    versions: tuple[ModelVersion, ...]
    registered: bool  # whether its model has a page
    commit: str | None  # the dataset commit, if the project still has it

    @property
    def state(self) -> str:
        return state_of(self.run.status)

    @property
    def error(self) -> str:
        """Reason for its failure; empty if it did not fail, or its process died."""
        return self.run.tags.get(ERROR, "")

    @property
    def searched(self) -> bool:
        """True if the run is a hyperparameter search, which has its own page."""
        return SEARCH in self.run.tags

    @property
    def note(self) -> str:
        """The note that a person wrote, here or with MLflow's own tools."""
        return note_of(self.run)

    def said(self, *names: str) -> str:
        """Return the first of these tags that the run has."""
        return next((self.run.tags[name] for name in names if self.run.tags.get(name)), "")


def run_view(project: Project, run_id: str, *, find: str = "", metric: Sequence[str] = ()) -> RunView:
    """Return one run.

    Args:
        find: Text that the names of the listed metrics contain.
        metric: Metrics to draw instead of the first few.

    Raises:
        NotFound: There is no such run.
    """
    search = project.run_search
    run = search.get([run_id])[0]
    of_system = [name for name in sorted(run.metrics) if name.startswith(SYSTEM)]
    others = sorted(run.metrics.keys() - set(of_system))
    wanted = [name for name in others if find.lower() in name.lower()]
    children = search.search(RunQuery((Condition(Column(Kind.TAG, PARENT), "=", run.id),), limit=NESTED))
    artefacts, problem = _artefacts(project, run_id)
    tags = {name: text for name, text in sorted(run.tags.items()) if not name.startswith("mlflow.")}
    commit = run.tags.get("dataset_commit") or run.tags.get("mainspring.dataset_commit")
    versions = project.versions.all(run.model)
    return RunView(
        run=run,
        parent=_parent(project, run),
        nested=children.runs,
        more_nested=bool(children.next),
        metrics={name: run.metrics[name] for name in wanted[:LISTED]},
        of_metrics=len(wanted),
        find=find,
        charts=_charts(project, run_id, [name for name in metric if name in run.metrics] or _first(wanted), "metric"),
        system=_charts(project, run_id, of_system, "system"),
        system_metrics=len(of_system),
        tags={name: text for name, text in tags.items() if name not in (*_PROCESS, *_APART)},
        process={name.removeprefix("mainspring."): run.tags[name] for name in _PROCESS if run.tags.get(name)},
        artefacts=artefacts,
        artefacts_problem=problem,
        versions=tuple(version for version in versions if version.run_id == run.id),
        registered=bool(versions) or run.model in project.definitions.models,
        commit=commit if commit and _has_commit(project, commit) else None,
    )


def _first(names: Sequence[str]) -> list[str]:
    """Return the names, those most likely to be lines first: a loss is logged step by step."""
    return sorted(names, key=lambda name: ("loss" not in name.lower(), name))[:TRIED]


def _charts(project: Project, run_id: str, names: Sequence[str], id_: str) -> tuple[Chart, ...]:
    found: list[Chart] = []
    for number, name in enumerate(names[:TRIED]):
        history = looked_at(project.run_search, [run_id], name)
        if history is not None and id_ == "system" and history.axis is Axis.STEP:
            history = project.run_search.history([run_id], name, points=160, axis=Axis.TIME)
        if history is not None and len(found) < DRAWN:
            found.append(one_chart(history, run_id, f"{id_}-{number}"))
    return tuple(found)


def _parent(project: Project, run: RunRow) -> RunRow | None:
    named = run.tags.get(PARENT)
    if not named:
        return None
    try:
        return project.run_search.get([named])[0]
    except NotFound:
        return None


def _artefacts(project: Project, run_id: str) -> tuple[Mapping[str, int], str | None]:
    try:
        return project.tracking.artefacts(run_id), None
    except MainspringError as error:
        return {}, str(error)


def _has_commit(project: Project, commit: str) -> bool:
    try:
        project.snapshots.get(commit)
    except MainspringError:
        return False
    return True


def add_run_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/runs`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "runs", "state_of": state_of, **content}

    @router.get("/runs")
    def show_runs(
        request: Request,
        q: str = "",
        model: str = "",
        status: str = "",
        sort: str = "",
        find: str = "",
        after: str = "",
        column: Several = None,
        open: Several = None,
    ) -> Response:
        asked = Asked(
            q.strip()[: _LONGEST + 1],
            check_id(model, "model") if model else "",
            status if status in STATUSES else "",
            sort.strip()[:_LONGEST],
            tuple(dict.fromkeys(each[:_LONGEST] for each in column or ())),
            find.strip()[:200],
            after,
            tuple(check_id(each, "run") for each in dict.fromkeys(open or ()))[:MOST_OPEN],
        )
        found = run_table(project, asked)
        found = replace(found, models=tuple(seen_models(request, project)(found.models)))
        content = framed(request, found=found, statuses=STATUSES, most=MOST)
        return page("runs.html", content, status=422 if found.problem else 200)

    @router.get("/runs/compare")
    def compare(request: Request, run: Several = None, metric: Several = None) -> Response:
        ids = [check_id(each, "run") for each in run or ()]
        found = comparison(project, ids, metric or ()) if ids else None
        drawn = parallel_picture(found.runs, found.scales) if found else ""
        content = {
            "found": found,
            "picture": drawn,
            "most": MOST,
            "address": address,
            "ids": ids,
            "asked": metric or [],
        }
        return page("runs_compare.html", framed(request, **content))

    @router.get("/runs/{run_id}")
    def show_run(request: Request, run_id: str, find: str = "", metric: Several = None) -> Response:
        view = run_view(project, check_id(run_id, "run"), find=find.strip()[:200], metric=metric or ())
        may_manage = may(request, project, Action.RUN_WRITE, f"run/{run_id}")
        shared = {"listed": LISTED, "longest": (LONGEST_NAME, LONGEST_NOTE), "may_manage": may_manage}
        return page("run.html", framed(request, view=view, **shared))

    @router.post("/runs/{run_id}")
    async def describe(request: Request, run_id: str) -> Response:
        fields, by = form(await request.body()), caller(request).actor
        texts = {"name": fields.get("name"), "note": fields.get("note", "")}  # an emptied field is not sent
        await run_in_threadpool(lambda: describe_run(project, check_id(run_id, "run"), **texts, by=by))
        return RedirectResponse(f"/runs/{run_id}", status_code=303)
