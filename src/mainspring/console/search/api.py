"""JSON API of a hyperparameter search: the content of its page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from mainspring.console.answers import Answer
from mainspring.console.endpoints.api import Id
from mainspring.console.search.pages import search_page
from mainspring.core.ids import check_id
from mainspring.project import Project

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
Sort = Annotated[str, Query(max_length=40)]


def add_search_api(router: APIRouter, project: Project) -> None:
    """Add the route `/runs/{run_id}/search`."""

    @router.get("/runs/{run_id}/search")
    def show_search(run_id: Id, sort: Sort = "best", begin: Begin = 0) -> Answer:
        """A hyperparameter search: the best trial, the importance of each parameter, and its trials, 25 at a time."""
        view = search_page(project, check_id(run_id, "run"), sort=sort, begin=begin)
        return Answer(
            {
                "run": view.run,
                "metric": view.found.metric,
                "maximize": view.found.maximize,
                "best": view.best,
                "counts": view.counts,
                "importance": view.found.importance,
                "fixed": view.fixed,
                "trials": view.rows,
                "of": len(view.found.trials),
                "next": view.next,
                "trainings": [run.id for run in view.trainings],
            }
        )
