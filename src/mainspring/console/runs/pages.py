"""The pages of runs: the table, the comparison, one run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.console.runs.comparison import MOST, address, comparison
from mainspring.console.runs.page import LISTED, run_view
from mainspring.console.runs.parallel import picture
from mainspring.console.runs.table import Asked, run_table, state_of
from mainspring.core.ids import check_id
from mainspring.project import Project
from mainspring.registry.searching import STATUSES

Several = Annotated[list[str] | None, Query()]
_LONGEST = 2000


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
    ) -> Response:
        asked = Asked(
            q.strip()[: _LONGEST + 1],
            check_id(model, "model") if model else "",
            status if status in STATUSES else "",
            sort.strip()[:_LONGEST],
            tuple(dict.fromkeys(each[:_LONGEST] for each in column or ())),
            find.strip()[:200],
            after,
        )
        found = run_table(project, asked)
        content = framed(request, found=found, statuses=STATUSES, most=MOST)
        return page("runs.html", content, status=422 if found.problem else 200)

    @router.get("/runs/compare")
    def compare(request: Request, run: Several = None, metric: Several = None) -> Response:
        ids = [check_id(each, "run") for each in run or ()]
        found = comparison(project, ids, metric or ()) if ids else None
        drawn = picture(found.runs, found.scales) if found else ""
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
        return page("run.html", framed(request, view=view, listed=LISTED))
