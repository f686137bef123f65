"""The pages for people, their log-in, and their assets."""

from __future__ import annotations

import asyncio
import re
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.access.audit import add_audit_pages
from mainspring.console.access.evidence import add_evidence_pages
from mainspring.console.access.keys import add_key_pages
from mainspring.console.access.sessions import add_session_pages
from mainspring.console.access.sign_in import add_sign_in
from mainspring.console.assets import add_assets
from mainspring.console.background_cache import Looking, Shared
from mainspring.console.chains.pages import add_chain_pages
from mainspring.console.collections.pages import add_collection_pages
from mainspring.console.cost.pages import add_cost_pages
from mainspring.console.data.pages import add_data_pages
from mainspring.console.endpoints.pages import add_endpoint_pages
from mainspring.console.features.pages import add_feature_pages
from mainspring.console.find import add_find_page
from mainspring.console.fleet.pages import add_fleet_pages
from mainspring.console.guard import SIGN_IN, caller, cookie_name, form
from mainspring.console.incidents.pages import add_incident_pages
from mainspring.console.jobs.pages import add_job_pages
from mainspring.console.language_models.held_calls import add_held_call_pages
from mainspring.console.language_models.pages import add_language_model_pages
from mainspring.console.models.explanation import add_explanation_pages
from mainspring.console.models.pages import add_model_pages
from mainspring.console.permissions import may
from mainspring.console.pipelines.pages import add_pipeline_pages
from mainspring.console.predictions.answer_trace import add_answer_page
from mainspring.console.predictions.pages import add_prediction_pages
from mainspring.console.prompts.pages import add_prompt_pages
from mainspring.console.render import login_page, onward_page
from mainspring.console.rollouts.pages import add_rollout_pages
from mainspring.console.routing import router_of
from mainspring.console.runs.pages import add_run_pages
from mainspring.console.search.pages import add_search_pages
from mainspring.console.streams.pages import add_stream_pages
from mainspring.core.errors import Denied, Overloaded
from mainspring.project import Project
from mainspring.security.attempts import Attempts
from mainspring.security.model import PROJECT, Action, AuditEvent, Kind, Principal
from mainspring.security.refused import FLUSH_S, Refusals
from mainspring.security.sessions import LIFETIME, Sessions
from mainspring.security.sign_ins import SignIns

_ID = r"[A-Za-z0-9_.-]{1,128}"
_VERSION_PAGES = "card|evaluation|explanation|promote|approve"
_MODELS = rf"models(/{_ID}(/history|/rollback|/versions/[0-9]{{1,12}}(/({_VERSION_PAGES}))?)?)?"
_ENDPOINTS = rf"endpoints(/{_ID}(/(performance|fairness|drift|latency|capacity|callers|rollout))?)?"
_PIPELINES = rf"pipelines(/{_ID}(/runs/{_ID}(/steps/[A-Za-z0-9_.%-]{{1,140}})?)?)?"
_QUERY = r"(\?[!-~]{1,2000})?"  # anything printable: it is used on our own page only
_OWN_PAGE = re.compile(
    rf"/(predictions(/{_ID}(/answer)?)?|features(/{_ID})?|data(/{_ID}){{,3}}|runs(/{_ID}(/search)?|/compare)?|(jobs|rollouts|incidents|fleet|streams|prompts|answers|language-models)(/{_ID})?|collections(/{_ID}(/search)?)?|held-calls|cost|keys|sessions|audit|evidence|find|{_ENDPOINTS}|{_MODELS}|{_PIPELINES})?{_QUERY}"
)


def pages(
    project: Project, sessions: Sessions, looking: Looking, refusals: Refusals, sign_ins: SignIns | None = None
) -> APIRouter:
    """Return the routes of the pages."""
    router = router_of(include_in_schema=False)
    cookie, release, attempts = cookie_name(project), version("mainspring"), Attempts()
    incidents = Shared(lambda: len(project.incidents.open()))

    def frame(request: Request) -> dict[str, Any]:
        settings = project.settings
        return {
            "project": settings.project,
            "profile": settings.profile,
            "now": project.clock.now(),
            "wall": project.wall.now(),
            "replayed": settings.clock == "replay",
            "caller": caller(request),
            "release": release,
            "section": "",
            "open_incidents": incidents.get() if may(request, project, Action.INCIDENT_READ, PROJECT) else 0,
            "query": f"?{request.url.query}" if request.url.query else "",
        }

    for add in (
        add_feature_pages,
        add_data_pages,
        add_model_pages,
        add_explanation_pages,
        add_prediction_pages,
        add_endpoint_pages,
        add_stream_pages,
        add_collection_pages,
    ):
        add(router, project, looking, frame)
    for each in (
        add_answer_page,
        add_chain_pages,
        add_prompt_pages,
        add_language_model_pages,
        add_held_call_pages,
        add_run_pages,
        add_search_pages,
        add_job_pages,
        add_rollout_pages,
        add_pipeline_pages,
        add_incident_pages,
        add_fleet_pages,
        add_cost_pages,
        add_find_page,
        add_key_pages,
        add_session_pages,
        add_audit_pages,
        add_evidence_pages,
    ):
        each(router, project, frame)
    add_assets(router)

    provider = "" if sign_ins is None else SIGN_IN

    async def refuse(request: Request, reason: str) -> None:
        if await run_in_threadpool(refusals.add, _address(request), reason):
            loop = asyncio.get_running_loop()
            loop.call_later(FLUSH_S, lambda: loop.run_in_executor(None, refusals.flush))

    async def check_rate(request: Request) -> None:
        try:
            attempts.check(_address(request))
        except Overloaded:
            await refuse(request, "Too many log-in attempts.")
            raise

    if sign_ins is not None:
        add_sign_in(router, project, sign_ins, cookie, own_page, check_rate, refuse)

    @router.get("/login")
    def show_login(request: Request, ticket: str = "", next_: Annotated[str, Query(alias="next")] = "/") -> Response:
        # A ticket is used by the form alone: a browser may fetch an address ahead.
        return login_page(request.scope, wanted=own_page(next_), ticket=ticket[:1000], provider=provider)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        fields = form(await request.body())
        wanted = own_page(fields.get("next", "/"))
        try:
            await check_rate(request)
        except Overloaded as full:
            refused = login_page(request.scope, status=429, refused=str(full), wanted=wanted, provider=provider)
            refused.headers["retry-after"] = str(full.retry_after_ms // 1000)
            return refused
        try:
            principal = await run_in_threadpool(_identified, project, sessions, fields)
            project.authoriser.check(principal, Action.CONSOLE_OPEN, PROJECT)
        except Denied as denied:
            # The text entered as a key is not logged: it may be a password.
            await refuse(request, denied.what)
            return login_page(request.scope, status=401, refused=str(denied), wanted=wanted, provider=provider)
        await run_in_threadpool(_note, project, _named(principal), "console.login")
        response = RedirectResponse(wanted, status_code=303)
        response.set_cookie(
            cookie,
            sessions.open(principal),
            max_age=LIFETIME // 1_000_000,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        known = caller(request)
        if known.session is not None:
            sessions.close(known.session)
            _note(project, _named(known.principal), "console.logout")
        elsewhere = ""
        if known.session is not None and sign_ins is not None and known.principal.kind is Kind.USER:
            elsewhere = sign_ins.close(known.session)
        # The policy lets no form lead to another origin; a page of ours may go there.
        response: Response = (
            onward_page(request.scope, elsewhere, done="out")
            if elsewhere
            else RedirectResponse("/login", status_code=303)
        )
        response.delete_cookie(cookie, httponly=True, samesite="strict")
        return response

    return router


def own_page(wanted: str) -> str:
    """Return a page of the console: the wanted one if it is one, else the first."""
    return wanted if _OWN_PAGE.fullmatch(wanted) else "/"


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _identified(project: Project, sessions: Sessions, fields: dict[str, str]) -> Principal:
    """Return the caller that a log-in form names, by a ticket or a key. Raises `Denied`."""
    if fields.get("ticket"):
        return project.authenticator.principal(sessions.redeem(fields["ticket"]))
    return project.authenticator.identify(fields.get("key", "").strip())


def _note(project: Project, who: str, action: str, detail: str = "") -> None:
    project.audit.append([AuditEvent(project.wall.now(), who, action, "console", detail)])


def _named(principal: Principal) -> str:
    return f"{principal.name} ({principal.id})"
