"""The page of costs and its JSON API, read-only; and what a caller's own requests cost, for everybody."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.background_cache import Looking
from mainspring.console.cost.listing import BY, SPREADS, cost_page
from mainspring.console.downloads import csv_file
from mainspring.console.features.pages import Frame
from mainspring.console.permissions import caller_of
from mainspring.console.render import page
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.operations.advise.saving import savings
from mainspring.operations.advise.saving_model import SavingsReport
from mainspring.operations.cost.reporting import CostLine, CostReport, of_caller, report
from mainspring.project import Project

Days = Annotated[int, Query(ge=1, le=400)]
By = Literal[
    "kind", "endpoint", "run", "step", "view", "batch", "job", "table", "language-model", "version", "model", "key",
    "team", "measure", "day",
]  # fmt: skip
Spread = Literal["apart", "platform", "all"]
PERIODS = (7, 30, 90)


def add_cost_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/cost`."""

    looking = Looking(wait_s=0.05, kept=2)

    @router.get("/cost")
    def show_cost(request: Request, by: By = "kind", days: Days = 30, spread: Spread = "apart") -> Response:
        content: dict[str, Any] = {
            **frame(request),
            "section": "cost",
            "periods": PERIODS,
            "groupings": BY,
            "view": cost_page(project, by, days, spread),
            "saving": _saving(project, looking),
        }
        return page("cost.html", content)

    @router.get("/cost.csv")
    def save_cost(by: By = "kind", days: Days = 30, spread: Spread = "apart") -> Response:
        head = list(CostLine.__struct_fields__)
        rows = ([getattr(line, name) for name in head] for line in _report(project, by, days, spread).lines)
        return csv_file(f"cost-by-{by}.csv", head, rows)


def add_cost_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/cost`."""

    @router.get("/cost")
    @answers(CostReport)
    def show_cost(by: By = "kind", days: Days = 30, spread: Spread = "apart") -> Answer:
        """Cost of the last days by kind, endpoint, run, key, team and other groups, the dearest first."""
        return Answer(_report(project, by, days, spread))

    @router.get("/cost/own")
    @answers(CostReport)
    def show_own_cost(request: Request, by: By = "kind", days: Days = 30) -> Answer:
        """Cost of what the caller asked for in the last days: by its key, and by all keys of its account."""
        caller = caller_of(request)
        ids = {caller.id}
        if caller.account:
            ids |= {caller.account, *(key.id for key in project.key_store.all() if key.owner == caller.account)}
        since = _since(project, days)
        return Answer(report(project, by, since=since, of=of_caller(ids)))


def _saving(project: Project, looking: Looking) -> SavingsReport | None:
    """Return what would save, as of this hour; `None` while it is looked for, or cannot be."""
    try:
        return looking.at(project.wall.now() // HOUR, lambda: savings(project, files=False))[1]
    except MainspringError:
        return None


def _report(project: Project, by: str, days: int, spread: str) -> CostReport:
    return report(project, by, since=_since(project, days), spread_out=SPREADS[spread])


def _since(project: Project, days: int) -> int:
    return project.wall.now() - (days - 1) * DAY
