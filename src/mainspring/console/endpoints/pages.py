"""The pages of endpoints: all of them, and one with its tabs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from mainspring.console.background_cache import Looking
from mainspring.console.charts import spark
from mainspring.console.endpoints.callers import callers_page
from mainspring.console.endpoints.capacity import capacity
from mainspring.console.endpoints.drift import bin_name, column_detail, drift
from mainspring.console.endpoints.fairness import LEAST, fairness, named, rate_text
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.overview import SHOWN_COLUMNS, known_endpoints, overview
from mainspring.console.endpoints.performance import interval, performance
from mainspring.console.endpoints.period import RANGES, Period, asked_period
from mainspring.console.endpoints.scaling import STATES as STATES_OF_MODELS
from mainspring.console.endpoints.scaling import scaling_page
from mainspring.console.endpoints.service import service
from mainspring.console.features.pages import Frame
from mainspring.console.features.values import source_address
from mainspring.console.permissions import may, seen, seen_endpoints
from mainspring.console.render import page
from mainspring.console.rollouts.listing import STATES, rollout_list
from mainspring.core.ids import check_id
from mainspring.operations.collection_monitoring import watched_collections
from mainspring.operations.endpoint_health import endpoints, health
from mainspring.operations.service.skew import skew
from mainspring.project import Project
from mainspring.security.model import Action
from mainspring.stats.fairness.reporting import LEAST_ROWS

HEALTH = {  # state -> its word and its look
    "page": ("Broken", "alert"),
    "ticket": ("Suspicious", "drifted"),
    "idle": ("Not live", "idle"),
    "silent": ("No traffic", "plain"),
    "well": ("Well", "fresh"),
}
TABS = {
    "": "Overview",
    "performance": "Performance",
    "fairness": "Fairness",
    "drift": "Drift",
    "latency": "Latency",
    "capacity": "Capacity",
    "scaling": "Scaling",
    "callers": "Callers",
    "rollout": "Rollouts",
}
Asked = Annotated[Period, Depends(asked_period)]
Least = Annotated[int, Query(ge=1, le=10**6)]
Name = Annotated[str, Query(max_length=300)]


def add_endpoint_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the first page, and the routes under `/endpoints`."""

    def may_see_callers(request: Request, endpoint: str) -> bool:
        return may(request, project, Action.PREDICTION_READ, f"endpoint/{endpoint}")

    def framed(request: Request, endpoint: str, tab: str, period: Period, **content: Any) -> dict[str, Any]:
        shared = {
            "section": "overview",
            "endpoint": endpoint,
            "others": seen_endpoints(request, project, known_endpoints(project, check_id(endpoint, "endpoint"))),
            "tab": tab,
            "tabs": {
                path: name for path, name in TABS.items() if path != "callers" or may_see_callers(request, endpoint)
            },
            "period": period,
            "ranges": RANGES,
        }
        return {**frame(request), **shared, **content}

    def one(request: Request, endpoint: str, period: Period) -> Response:
        view = overview(project, check_id(endpoint, "endpoint"), period)
        content = {"view": view, "shown_columns": SHOWN_COLUMNS, "source_address": source_address}
        return page("overview.html", framed(request, endpoint, "", period, **content))

    @router.get("/")
    def show_overview(request: Request, period: Asked, endpoint: str | None = None) -> Response:
        names = seen_endpoints(request, project, endpoints(project))
        if endpoint is None and len(names) > 1:
            return show_endpoints(request)
        if endpoint is None and not names:
            return page("overview.html", {**frame(request), "view": None, "section": "overview"})
        return one(request, names[0] if endpoint is None else endpoint, period)

    @router.get("/endpoints")
    def show_endpoints(request: Request) -> Response:
        rows = seen(request, project, Action.ENDPOINT_READ, "endpoint", health(project), lambda row: row.name)
        lines = {row.name: spark(row.predictions, max(row.predictions, default=0) or 1) for row in rows}
        content = {"rows": rows, "sparks": lines, "states": HEALTH, "section": "overview"}
        return page("endpoints.html", {**frame(request), **content})

    @router.get("/endpoints/{endpoint}")
    def show_endpoint(request: Request, endpoint: str, period: Asked) -> Response:
        if endpoint in project.definitions.answers:  # as a rollout or an incident of a chain links it
            return RedirectResponse(f"/answers/{endpoint}", status_code=303)
        if endpoint in watched_collections(project):
            return RedirectResponse(f"/collections/{endpoint}", status_code=303)
        return one(request, endpoint, period)

    @router.get("/endpoints/{endpoint}/performance")
    def show_performance(request: Request, endpoint: str, period: Asked, metric: Name = "") -> Response:
        content = framed(request, endpoint, "performance", period)
        view = performance(project, endpoint, period, metric)
        return page("endpoint_performance.html", {**content, "view": view, "interval": interval})

    @router.get("/endpoints/{endpoint}/fairness")
    def show_fairness(
        request: Request, endpoint: str, period: Asked, measure: Name = "", part: Name = "", least: Least = LEAST_ROWS
    ) -> Response:
        content = framed(request, endpoint, "fairness", period)
        view = fairness(project, looking, endpoint, period, part=part, measure=measure, least_rows=least)
        shared = {"view": view, "least": LEAST, "rate_text": rate_text, "named": named}
        return page("endpoint_fairness.html", {**content, **shared})

    @router.get("/endpoints/{endpoint}/drift")
    def show_drift(request: Request, endpoint: str, period: Asked, column: Name = "") -> Response:
        content = framed(request, endpoint, "drift", period)
        if not column:
            view = {"view": drift(project, endpoint, period), "compared": skew(project, endpoint)}
            return page("endpoint_drift.html", {**content, **view})
        detail = column_detail(project, endpoint, column, period)
        return page("endpoint_column.html", {**content, "view": detail, "bin_name": bin_name})

    @router.get("/endpoints/{endpoint}/latency")
    def show_latency(request: Request, endpoint: str, period: Asked) -> Response:
        content = framed(request, endpoint, "latency", period)
        return page("endpoint_latency.html", {**content, "view": service(project, endpoint, period)})

    @router.get("/endpoints/{endpoint}/capacity")
    def show_capacity(request: Request, endpoint: str, period: Asked) -> Response:
        content = framed(request, endpoint, "capacity", period)
        state = live(project, endpoint, project.routes.current().get(endpoint))
        view = capacity(project, endpoint, {arm.digest: arm.weight for arm in state.arms})
        return page("endpoint_capacity.html", {**content, "view": view})

    @router.get("/endpoints/{endpoint}/scaling")
    def show_scaling(request: Request, endpoint: str, period: Asked) -> Response:
        content = framed(request, endpoint, "scaling", period)
        view = scaling_page(project, endpoint, period)
        return page("endpoint_scaling.html", {**content, "view": view, "states": STATES_OF_MODELS})

    @router.get("/endpoints/{endpoint}/callers")
    def show_callers(request: Request, endpoint: str, period: Asked) -> Response:
        content = framed(request, endpoint, "callers", period)
        return page("endpoint_callers.html", {**content, "view": callers_page(project, looking, endpoint, period)})

    @router.get("/endpoints/{endpoint}/rollout")
    def show_rollouts_of(request: Request, endpoint: str, period: Asked) -> Response:
        content = framed(request, endpoint, "rollout", period)
        found = rollout_list(project, endpoint=endpoint)
        return page("endpoint_rollout.html", {**content, "found": found, "states": STATES})
