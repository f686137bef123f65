"""JSON API of runs: search, one run, and the history of a metric."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, answers
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.guard import caller
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.operations.runs import describe_run
from mainspring.project import Project
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.searching import MOST_POINTS, Axis, Column, Kind, Order, RunQuery, RunRow
from mainspring.registry.unknown_names import unknown_names

MaybeId = Annotated[str | None, Query(pattern=f"^{ID_PATTERN}$")]
Text = Annotated[str, Query(max_length=4000)]
Points = Annotated[int, Query(ge=1, le=MOST_POINTS)]


class Described(msgspec.Struct, forbid_unknown_fields=True):
    """Request to rename a run, or to write a note on it."""

    name: str | None = None
    note: str | None = None


def add_run_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/runs`."""

    @router.get("/runs")
    @answers(runs=list[RunRow], next=str | None)
    def list_runs(
        model: MaybeId = None,
        filter: Text = "",
        status: Text = "",
        order: Text = "",
        after: Text = "",
        limit: Limit = 50,
    ) -> Answer:
        """Runs that match a filter, newest first unless an order is given; `next` is where the next page begins."""
        kinds = project.run_search.kinds
        found = parse_filter(filter, project.wall.now(), kinds)
        ordered = parse_order(order, kinds) if order else Order()
        query = RunQuery(found.conditions, found.words, ordered, limit, after)
        if model is not None:
            query = query.where(Column(Kind.ATTRIBUTE, "model"), model)
        if status:
            query = query.where(Column(Kind.ATTRIBUTE, "status"), status)
        page = project.run_search.search(query, None)
        if not after:
            for slip in unknown_names(project.run_search, found, ordered, page.runs, ordered_by=order):
                raise slip
        return Answer({"runs": page.runs, "next": page.next or None})

    @router.get("/runs/{run_id}")
    @answers(run=RunRow)
    def show_run(run_id: Id) -> Answer:
        """One run with everything it logged; for metrics, the newest values."""
        return Answer({"run": project.run_search.get([check_id(run_id, "run")])[0]})

    @router.post("/runs/{run_id}")
    @answers(run=RunRow)
    async def describe(request: Request, run_id: Id, asked: Annotated[Described, Depends(Body(Described))]) -> Answer:
        """Change the `name` or the `note` of a run; the body is `{"name", "note"}`, and what it lacks stays."""
        by = caller(request).actor
        run = check_id(run_id, "run")
        await run_in_threadpool(lambda: describe_run(project, run, name=asked.name, note=asked.note, by=by))
        return Answer({"run": (await run_in_threadpool(project.run_search.get, [run]))[0]})

    @router.get("/runs/{run_id}/history")
    def show_history(run_id: Id, metric: Text, points: Points = 200, axis: Axis = Axis.STEP) -> Answer:
        """A run's history of a metric, in at most `points` buckets with the lowest, highest and mean of each."""
        run = project.run_search.get([check_id(run_id, "run")])[0]
        known = [run.id] if metric in run.metrics else []
        history = project.run_search.history(known, metric, points=points, axis=axis)
        return Answer(
            {
                "metric": metric,
                "axis": axis.value,
                "first": history.first,
                "width": history.width,
                "buckets": history.runs.get(run.id, ()),
            }
        )
