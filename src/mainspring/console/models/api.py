"""JSON API of models, versions and cards: the content of their pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import LATER, Answer, Body, Json, answers
from mainspring.console.background_cache import Looking
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.features.values import Seen
from mainspring.console.guard import caller
from mainspring.console.models.decision_history import Happening, history
from mainspring.console.models.decisions import Decision, decided, rolled_back
from mainspring.console.models.listing import ModelRow, model_list
from mainspring.console.models.model_page import known_versions, model_page
from mainspring.console.models.reading import carded, evaluated
from mainspring.console.models.version_page import find_version, version_page
from mainspring.console.permissions import seen_endpoints, seen_models
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.operations.models.cards import document
from mainspring.operations.models.evaluation import evaluation_document
from mainspring.project import Project
from mainspring.registry.model import AliasMove, ModelVersion

Number = Annotated[str, Path(pattern="^[0-9]{1,12}$")]
Words = Annotated[str, Query(max_length=200)]
Before = Annotated[int | None, Query(ge=1, le=10**12)]
Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
Threshold = Annotated[float | None, Query(ge=0, le=1)]
MaybeId = Annotated[str | None, Query(pattern=f"^{ID_PATTERN}$")]


def add_model_api(router: APIRouter, project: Project, looking: Looking) -> None:
    """Add the routes under `/models`."""

    @router.get("/models")
    @answers(models=list[ModelRow], found=int, of=int)
    def list_models(request: Request, q: Words = "") -> Answer:
        """Every model, declared or registered, with its aliases, champion, and serving endpoints."""
        found = model_list(project, q, seen_models(request, project), partial(seen_endpoints, request, project))
        return Answer({"models": found.rows, "found": found.found, "of": found.of})

    @router.get("/models/{model}")
    def show_model(request: Request, model: Id, before: Before = None, limit: Limit = 20) -> Answer:
        """One model with its versions, newest first; `next` is the `before` of the next page."""
        seen = partial(seen_endpoints, request, project)
        view = model_page(project, check_id(model, "model"), seen, before=before, limit=limit)
        rows = [{**_fields(row), "state": row.state} for row in view.rows]
        return Answer({**_fields(view), "rows": rows, "chart": None})

    @router.get("/models/{model}/versions")
    @answers(model=str, versions=list[ModelVersion], moves=list[AliasMove])
    def list_versions(model: Id) -> Answer:
        """A model's versions and alias moves, newest first."""
        versions = known_versions(project, check_id(model, "model"))
        return Answer({"model": model, "versions": versions, "moves": project.versions.moves(model)})

    @router.get("/models/{model}/history")
    @answers(model=str, history=list[Happening], of=int, next=int | None)
    def show_history(model: Id, alias: MaybeId = None, begin: Begin = 0, limit: Limit = 50) -> Answer:
        """Decision history: alias moves, approvals and deletion marks, with actor, time and reason; newest first."""
        known_versions(project, check_id(model, "model"))
        found = history(project, model, alias=alias or "", begin=begin, limit=limit)
        return Answer({"model": model, "history": found.rows, "of": found.of, "next": found.next})

    @router.get("/models/{model}/versions/{number}")
    def show_version(request: Request, model: Id, number: Number) -> Answer:
        """One version: lineage, files, signature, approvals, mark, metrics. Parts that are still being read are not
        `ready`.
        """
        seen = partial(seen_endpoints, request, project)
        view = version_page(project, looking, check_id(model, "model"), number, seen)
        return Answer({**_fields(view), "state": view.state, "goes_at": view.goes_at})

    @router.get("/models/{model}/versions/{number}/card", responses=LATER)
    def show_card(model: Id, number: Number) -> Json:
        """A version's model card; 202 while its held-out rows are scored."""
        seen = carded(project, looking, find_version(project, check_id(model, "model"), number))
        return _seen(seen, document)

    @router.get("/models/{model}/versions/{number}/evaluation", responses=LATER)
    def show_evaluation(model: Id, number: Number, threshold: Threshold = None) -> Json:
        """Curves and confusion of a version on its held-out rows, and its metrics beside the champion's; 202 while they
        are scored.
        """
        seen = evaluated(project, looking, find_version(project, check_id(model, "model"), number))
        return _seen(seen, lambda found: evaluation_document(found, threshold))

    @router.post("/models/{model}/versions/{number}/promote")
    @router.post("/models/{model}/versions/{number}/approve")
    async def decide(
        request: Request, model: Id, number: Number, asked: Annotated[Decision, Depends(Body(Decision))]
    ) -> Answer:
        """`promote` a version if it passes its gates, or `approve` it, with `{"reason", "champion"}`, both optional:
        `champion` is the one that must be replaced.
        """
        action = request.url.path.rpartition("/")[2]
        version = find_version(project, check_id(model, "model"), number)
        made = await run_in_threadpool(decided, project, version, action, asked, caller(request))
        return Answer({"promotion" if action == "promote" else "approval": made})

    @router.post("/models/{model}/rollback")
    async def roll_back(request: Request, model: Id, asked: Annotated[Decision, Depends(Body(Decision))]) -> Answer:
        """Make the previous version champion again, with `{"reason", "champion"}`."""
        known_versions(project, check_id(model, "model"))
        made = await run_in_threadpool(rolled_back, project, model, asked, caller(request))
        return Answer({"promotion": made})


def _fields(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__dataclass_fields__}


def _seen(seen: Seen[Any], written: Callable[[Any], dict[str, Any]]) -> Json:
    seen.raise_failure()
    if seen.found is None:
        response = Json({"ready": False}, 202)
        response.headers["retry-after"] = "2"
        return response
    return Json(written(seen.found))
