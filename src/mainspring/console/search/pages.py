"""The route of a search's page."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.console.runs.table import state_of
from mainspring.console.search.page import search_page
from mainspring.console.search.picture import over_trials, slices, ticks
from mainspring.core.ids import check_id
from mainspring.project import Project

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
_STATES = {"complete": "fresh", "pruned": "drifted", "failed": "late", "lost": "empty", "running": "live"}


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
