"""The routes of models, versions and cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.background_cache import Looking
from mainspring.console.guard import caller, confirmed
from mainspring.console.models import curve_pictures
from mainspring.console.models.decision_history import PAGE, history
from mainspring.console.models.decisions import (
    Decision,
    Proposal,
    approval_proposal,
    decided,
    promotion_proposal,
    rollback_proposal,
    rolled_back,
)
from mainspring.console.models.intervals import interval_picture
from mainspring.console.models.listing import STATES, model_list
from mainspring.console.models.model_page import known_versions, model_page
from mainspring.console.models.reading import carded, evaluated
from mainspring.console.models.version_page import find_version, version_page
from mainspring.console.permissions import may, seen_endpoints, seen_models
from mainspring.console.render import page
from mainspring.console.runs.table import state_of
from mainspring.core.errors import Unavailable
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.governance.model import Card
from mainspring.governance.rendering import (
    fairness_table,
    left_out,
    metric_names,
    resource_facts,
    verdict,
    wide_gaps,
)
from mainspring.governance.words import prose
from mainspring.operations.models.cards import render, words_file
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.security.model import Action

Frame = Callable[[Request], dict[str, Any]]
Before = Annotated[int | None, Query(ge=1, le=10**12)]
Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
MaybeId = Annotated[str, Query(pattern=f"^({ID_PATTERN})?$")]
Threshold = Annotated[float | None, Query(ge=0, le=1)]
_PATIENCE_S = 60.0  # seconds that a request for the file waits


def add_model_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes under `/models`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "models", "states": STATES, "run_state": state_of, **content}

    @router.get("/models")
    def show_models(request: Request, q: str = "") -> Response:
        words = q.strip()[:200]
        found = model_list(project, words, seen_models(request, project), partial(seen_endpoints, request, project))
        return page("models.html", framed(request, found=found, words=words))

    @router.get("/models/{model}")
    def show_model(request: Request, model: str, before: Before = None) -> Response:
        view = model_page(project, check_id(model, "model"), partial(seen_endpoints, request, project), before=before)
        return page("model.html", framed(request, view=view))

    @router.get("/models/{model}/history")
    def show_history(request: Request, model: str, alias: str = "", begin: Begin = 0) -> Response:
        known = {each.version for each in known_versions(project, check_id(model, "model"))}
        chosen = check_id(alias, "alias") if alias else ""
        found = history(project, model, alias=chosen, begin=begin, limit=PAGE)
        return page("model_history.html", framed(request, model=model, found=found, alias=chosen, known=known))

    @router.get("/models/{model}/versions/{number}")
    def show_version(request: Request, model: str, number: str) -> Response:
        seen = partial(seen_endpoints, request, project)
        view = version_page(project, looking, check_id(model, "model"), number, seen)
        return page("version.html", framed(request, view=view, interval_picture=interval_picture))

    @router.get("/models/{model}/versions/{number}/evaluation")
    def show_evaluation(request: Request, model: str, number: str, threshold: Threshold = None) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        seen = evaluated(project, looking, version)
        found, chosen = seen.found, None
        if found is not None and found.binary is not None:
            chosen = found.binary.points.at(found.threshold if threshold is None else threshold)
        content = {"version": version, "seen": seen, "found": found, "chosen": chosen, "pictures": curve_pictures}
        return page("evaluation.html", framed(request, **content))

    def proposed(request: Request, proposal: Proposal, back: str, **content: Any) -> Response:
        action = Action(f"model.{request.url.path.rpartition('/')[2]}")
        may_manage = may(request, project, action, f"model/{request.path_params['model']}")
        shared = {"proposal": proposal, "back": back, "may_manage": may_manage, "kept": {}, "reason": ""}
        shared["here"] = request.url.path
        return page("confirm.html", framed(request, **{**shared, **content}))

    @router.get("/models/{model}/versions/{number}/promote")
    def propose_promotion(request: Request, model: str, number: str) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        return proposed(request, promotion_proposal(project, looking, version), version_address(version))

    @router.get("/models/{model}/versions/{number}/approve")
    def propose_approval(request: Request, model: str, number: str) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        proposal = approval_proposal(project, version, caller(request).principal)
        return proposed(request, proposal, version_address(version))

    @router.post("/models/{model}/versions/{number}/promote")
    @router.post("/models/{model}/versions/{number}/approve")
    async def decide(request: Request, model: str, number: str) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        asked, action = _decision(await confirmed(request)), request.url.path.rpartition("/")[2]
        await run_in_threadpool(decided, project, version, action, asked, caller(request))
        return RedirectResponse(version_address(version) + ("#gates" if action == "promote" else ""), status_code=303)

    @router.get("/models/{model}/rollback")
    def propose_rollback(request: Request, model: str, endpoint: MaybeId = "", incident: MaybeId = "") -> Response:
        known_versions(project, check_id(model, "model"))
        back = _returned(model, endpoint, incident)
        content = {"kept": {"endpoint": endpoint, "incident": incident}, "reason": incident and f"incident {incident}"}
        return proposed(request, rollback_proposal(project, model, caller(request).principal), back, **content)

    @router.post("/models/{model}/rollback")
    async def roll_back(request: Request, model: str) -> Response:
        fields = await confirmed(request)
        known_versions(project, check_id(model, "model"))
        names = {kind: check_id(fields[kind], kind) if fields.get(kind) else "" for kind in ("endpoint", "incident")}
        await run_in_threadpool(rolled_back, project, model, _decision(fields), caller(request))
        return RedirectResponse(_returned(model, **names), status_code=303)

    @router.get("/models/{model}/versions/{number}/card")
    def show_card(request: Request, model: str, number: str) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        seen = carded(project, looking, version)
        content = {
            "version": version,
            "seen": seen,
            "card": seen.found,
            "prose": prose,
            "interval_picture": interval_picture,
            "metric_names": metric_names,
            "left_out": left_out,
            "fairness_table": fairness_table,
            "wide_gaps": wide_gaps,
            "resource_facts": resource_facts,
            "verdict": verdict,
            "words_file": words_file(version.model),
        }
        return page("card.html", framed(request, **content))

    @router.get("/models/{model}/versions/{number}/card.md")
    def download_card(model: str, number: str) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        return _download(version, card_now(project, looking, version))


def version_address(version: ModelVersion) -> str:
    """Return the address of a version's page."""
    return f"/models/{quote(version.model)}/versions/{version.version}"


def _decision(fields: Mapping[str, str]) -> Decision:
    return Decision(fields.get("reason", "")[:500], fields.get("champion", ""))


def _returned(model: str, endpoint: str = "", incident: str = "") -> str:
    """Return the address of the page from which a rollback was asked for."""
    if incident:
        return f"/incidents/{quote(incident)}"
    return f"/endpoints/{quote(endpoint)}" if endpoint else f"/models/{quote(model)}"


def card_now(project: Project, looking: Looking, version: ModelVersion) -> Card:
    """Return a version's card, waiting until it is ready.

    Raises:
        Unavailable: It cannot be made, or not within a minute.
    """
    seen = carded(project, looking, version, _PATIENCE_S)
    if seen.found is None:
        seen.raise_failure()
        raise Unavailable(
            "The card is being computed: its held-out rows are being scored.", fix="try again in a moment."
        )
    return seen.found


def _download(version: ModelVersion, card: Card) -> Response:
    name = (
        f"{version.model}-{version.version}-card.md"  # an id and a number, so nothing in it needs escaping in a header
    )
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(render(card, "md"), media_type="text/markdown; charset=utf-8", headers=headers)
