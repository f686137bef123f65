"""The pages of language models and their JSON API, read-only: models come from `apply`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.downloads import csv_file
from mainspring.console.features.pages import Frame
from mainspring.console.language_models.listing import budgets, model_page, model_rows, models_page
from mainspring.console.permissions import may, seen
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.core.time import DAY
from mainspring.operations.llm_usage import LanguageModelUsage, usage
from mainspring.operations.quotas import QuotaUse
from mainspring.operations.upstream_health import guard_acts
from mainspring.project import Project
from mainspring.project.language_models import declared_models
from mainspring.security.model import Action

Days = Annotated[int, Query(ge=1, le=366)]
By = Literal["key", "team", "model", "upstream"]
PERIODS = (7, 30, 90)


def add_language_model_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/language-models`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "language models", "periods": PERIODS, **content}

    @router.get("/language-models")
    def show_models(request: Request, days: Days = 30) -> Response:
        names = [*declared_models(project.applied)]
        shown = seen(request, project, Action.ENDPOINT_READ, "endpoint", names)
        readable = seen(request, project, Action.PREDICTION_READ, "endpoint", names)
        view = models_page(project, shown, readable, days)
        return page("language_models.html", framed(request, view=view, readable=readable))

    @router.get("/language-models.csv")
    def save_usage(request: Request, by: By = "model", days: Days = 30) -> Response:
        found = _usage(request, project, by, days)
        head = list(LanguageModelUsage.__struct_fields__)
        rows = ([getattr(each, name) for name in head] for each in found)
        return csv_file(f"language-models-by-{by}.csv", head, rows)

    @router.get("/language-models/{model}")
    def show_model(request: Request, model: str, days: Days = 30) -> Response:
        name = check_id(model, "language model")
        readable = may(request, project, Action.PREDICTION_READ, f"endpoint/{name}")
        view = model_page(project, name, days, readable=readable)
        row = view.rows[0]
        acts = guard_acts(project, name) if row.model.guard is not None else []
        return page("language_model.html", framed(request, view=view, row=row, acts=acts, readable=readable))


def add_language_model_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/language-models`."""

    @router.get("/language-models")
    @answers(models=list[dict[str, Any]])
    def list_models(request: Request) -> Answer:
        """All language models with the health of their upstreams, as the gateways of this machine see it."""
        names = seen(request, project, Action.ENDPOINT_READ, "endpoint", declared_models(project.applied))
        found = model_rows(project, names, project.wall.now())
        return Answer({"models": [_document(each) for each in found]})

    @router.get("/language-models/{model}")
    @answers(dict[str, Any])
    def show_model(model: str) -> Answer:
        """A language model with the health of its upstreams."""
        return Answer(_document(model_page(project, check_id(model, "language model"), 1, readable=False).rows[0]))

    @router.get("/language-model-usage")
    @answers(usage=list[LanguageModelUsage])
    def list_usage(request: Request, by: By = "model", days: Days = 30) -> Answer:
        """Use of language models in the last days by key, team, model or upstream, the dearest first."""
        return Answer({"usage": _usage(request, project, by, days)})

    @router.get("/language-model-budgets")
    @answers(budgets=list[QuotaUse])
    def list_budgets(request: Request) -> Answer:
        """Budgets of language models that something was used of in this period, the fullest first."""
        names = seen(request, project, Action.PREDICTION_READ, "endpoint", declared_models(project.applied))
        return Answer({"budgets": budgets(project, names)})


def _usage(request: Request, project: Project, by: str, days: int) -> list[LanguageModelUsage]:
    names = seen(request, project, Action.PREDICTION_READ, "endpoint", declared_models(project.applied))
    now = project.wall.now()
    return usage(project, by, now - now % DAY - (days - 1) * DAY, names)


def _document(row: Any) -> dict[str, Any]:
    return {
        "name": row.model.name,
        "description": row.model.description,
        "embeds": row.model.embeds,
        "upstreams": [
            {
                **msgspec.to_builtins(each.of),
                "known": each.known,
                "state": None if each.health is None else each.health.state,
                "waiting": None if each.health is None else each.health.waiting,
                "in_flight": None if each.health is None else each.health.in_flight,
            }
            for each in row.upstreams
        ],
    }
