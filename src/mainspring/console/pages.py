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
from mainspring.console.access.keys import add_key_pages
from mainspring.console.assets import add_assets
from mainspring.console.background_cache import Looking, Shared
from mainspring.console.data.pages import add_data_pages
from mainspring.console.endpoints.pages import add_endpoint_pages
from mainspring.console.features.pages import add_feature_pages
from mainspring.console.find import add_find_page
from mainspring.console.fleet.pages import add_fleet_pages
from mainspring.console.guard import caller, cookie_name, form
from mainspring.console.incidents.pages import add_incident_pages
from mainspring.console.jobs.pages import add_job_pages
from mainspring.console.models.explanation import add_explanation_pages
from mainspring.console.models.pages import add_model_pages
from mainspring.console.permissions import may
from mainspring.console.pipelines.pages import add_pipeline_pages
from mainspring.console.predictions.pages import add_prediction_pages
from mainspring.console.render import login_page
from mainspring.console.rollouts.pages import add_rollout_pages
from mainspring.console.runs.pages import add_run_pages
from mainspring.console.search.pages import add_search_pages
from mainspring.console.streams.pages import add_stream_pages
from mainspring.core.errors import Denied, Overloaded
from mainspring.project import Project
from mainspring.security.attempts import Attempts
from mainspring.security.model import PROJECT, Action, AuditEvent, Principal
from mainspring.security.refused import FLUSH_S, Refusals
from mainspring.security.sessions import LIFETIME, Sessions

_ID = r"[A-Za-z0-9_.-]{1,128}"
_VERSION_PAGES = "card|evaluation|explanation|promote|approve"
_MODELS = rf"models(/{_ID}(/history|/rollback|/versions/[0-9]{{1,12}}(/({_VERSION_PAGES}))?)?)?"
_ENDPOINTS = rf"endpoints(/{_ID}(/(performance|fairness|drift|latency|capacity|rollout))?)?"
_PIPELINES = rf"pipelines(/{_ID}(/runs/{_ID}(/steps/[A-Za-z0-9_.%-]{{1,140}})?)?)?"
_QUERY = r"(\?[!-~]{1,2000})?"  # anything printable: it is used on our own page only
_OWN_PAGE = re.compile(
    rf"/(predictions(/{_ID})?|features(/{_ID})?|data(/{_ID}){{,3}}|runs(/{_ID}(/search)?|/compare)?|(jobs|rollouts|incidents|fleet|streams)(/{_ID})?|keys|audit|find|{_ENDPOINTS}|{_MODELS}|{_PIPELINES})?{_QUERY}"
)


def pages(project: Project, sessions: Sessions, looking: Looking, refusals: Refusals) -> APIRouter:
    """Return the routes of the pages."""
    router = APIRouter(include_in_schema=False)
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
    ):
        add(router, project, looking, frame)
    for each in (
        add_run_pages,
        add_search_pages,
        add_job_pages,
        add_rollout_pages,
        add_pipeline_pages,
        add_incident_pages,
        add_fleet_pages,
        add_find_page,
        add_key_pages,
        add_audit_pages,
    ):
        each(router, project, frame)
    add_assets(router)

    @router.get("/login")
    def show_login(request: Request, ticket: str = "", next_: Annotated[str, Query(alias="next")] = "/") -> Response:
        # A ticket is used by the form alone: a browser may fetch an address ahead.
        wanted = next_ if _OWN_PAGE.fullmatch(next_) else "/"
        return login_page(request.scope, wanted=wanted, ticket=ticket[:1000])

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        fields = form(await request.body())
        wanted = fields.get("next", "/")
        wanted = wanted if _OWN_PAGE.fullmatch(wanted) else "/"
        address = request.client.host if request.client else ""

        async def refuse(reason: str) -> None:
            if await run_in_threadpool(refusals.add, address, reason):
                loop = asyncio.get_running_loop()
                loop.call_later(FLUSH_S, lambda: loop.run_in_executor(None, refusals.flush))

        try:
            attempts.check(address)
        except Overloaded as full:
            await refuse("Too many log-in attempts.")
            refused = login_page(request.scope, status=429, refused=str(full), wanted=wanted)
            refused.headers["retry-after"] = str(full.retry_after_ms // 1000)
            return refused
        try:
            principal = await run_in_threadpool(_identified, project, sessions, fields)
            project.authoriser.check(principal, Action.CONSOLE_OPEN, PROJECT)
        except Denied as denied:
            # The text entered as a key is not logged: it may be a password.
            await refuse(denied.what)
            return login_page(request.scope, status=401, refused=str(denied), wanted=wanted)
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
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(cookie, httponly=True, samesite="strict")
        return response

    return router


def _identified(project: Project, sessions: Sessions, fields: dict[str, str]) -> Principal:
    """Return the caller that a log-in form names, by a ticket or a key. Raises `Denied`."""
    if fields.get("ticket"):
        return project.authenticator.principal(sessions.redeem(fields["ticket"]))
    return project.authenticator.identify(fields.get("key", "").strip())


def _note(project: Project, who: str, action: str, detail: str = "") -> None:
    project.audit.append([AuditEvent(project.wall.now(), who, action, "console", detail)])


def _named(principal: Principal) -> str:
    return f"{principal.name} ({principal.id})"
