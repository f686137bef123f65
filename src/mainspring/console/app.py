"""The control plane's application: routes, errors, and the guard in front of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from mainspring.console.access.scim import add_scim
from mainspring.console.access.scim_answers import ROOT, scim_error
from mainspring.console.answers import Json, error_json
from mainspring.console.api import api
from mainspring.console.background_cache import Looking, Shared
from mainspring.console.guard import METRICS, PUBLIC, Guard
from mainspring.console.live_events import Changes, add_events, mark_of
from mainspring.console.openapi import document
from mainspring.console.pages import pages
from mainspring.console.render import error_page, wants_page
from mainspring.console.routing import router_of
from mainspring.console.streams.pages import stream_mark
from mainspring.core.errors import Invalid, MainspringError, NotFound, WrongMethod
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.project import Project
from mainspring.security.refused import Refusals
from mainspring.security.sessions import Sessions, session_secret
from mainspring.serving.plane.metrics import CONTENT_TYPE

# Built here, one after the other: requests run in threads, and each would build the shared parts first.
_PARTS = (
    "authenticator",
    "directory",
    "authoriser",
    "audit",
    "lake",
    "snapshots",
    "online",
    "tracking",
    "run_search",
    "versions",
    "approvals",
    "waivers",
    "evaluations",
    "deletions",
    "bundles",
    "routes",
    "rollouts",
    "predictions",
    "monitors",
    "incidents",
    "service",
    "baselines",
    "jobs",
    "stream_store",
    "definitions",
)


class _Console(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = document(self.title, self.router.routes, keyless=sorted(PUBLIC))
        return self.openapi_schema


class _Exposition(Response):
    media_type = CONTENT_TYPE


def create_app(project: Project, looking: Looking | None = None) -> FastAPI:
    """Return the ASGI application of one project's control plane and console.

    Args:
        looking: Cache of costly results.

    Raises:
        MainspringError: A part of the project cannot be opened.
    """
    app = _Console(
        title=f"Mainspring: {project.settings.project}",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's documentation pages load scripts from a CDN
        redoc_url=None,
    )
    for part in _PARTS:
        getattr(project, part)
    sessions = Sessions(session_secret(project.pepper), project.wall, project.ended_sessions)
    sign_ins = project.sign_ins(sessions)
    looking = looking or Looking()
    app.state.refusals = Refusals(project.audit, project.wall, action="console.login.refused", resource="console")
    streams = Shared(lambda: stream_mark(project), keep_s=10.0)  # their reports change every two seconds
    app.state.changes = Changes(lambda: mark_of(project) + streams.get())
    events = router_of(include_in_schema=False)
    add_events(events, app.state.changes)
    shown = pages(project, sessions, looking, app.state.refusals, sign_ins)
    for router in (_health(project), _metrics(project), _scim(project), events, api(project, looking), shown):
        # `include_router` would build every route a second time, at the first request.
        app.router.routes.extend(router.routes)
    app.add_exception_handler(MainspringError, _stated)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_middleware(Guard, project=project, sessions=sessions, routes=app.router.routes, sign_ins=sign_ins)
    return app


def _health(project: Project) -> APIRouter:
    router = router_of(prefix="/health", default_response_class=Json)

    @router.get("/live")
    def live() -> Json:
        """The process answers."""
        return Json({"live": True})

    @router.get("/ready")
    def ready() -> Json:
        """The catalog answers too; 503 where it does not."""
        try:
            project.routes.revision()
        except MainspringError:
            return Json({"ready": False}, 503)
        return Json({"ready": True})

    return router


def _metrics(project: Project) -> APIRouter:
    router, metrics = router_of(), ControlMetrics(project)

    @router.get(METRICS)
    def numbers() -> _Exposition:
        """Prometheus text: windows, incidents, objectives, freshness, capacity. Needs the scope scrape."""
        return _Exposition(metrics.text())

    return router


def _scim(project: Project) -> APIRouter:
    router = router_of(prefix=ROOT)
    add_scim(router, project)
    return router


def _answer(request: Request, error: MainspringError) -> Response:
    if request.url.path.startswith(f"{ROOT}/"):
        return scim_error(error)
    return error_page(request.scope, error) if wants_page(request.scope) else error_json(error)


def _stated(request: Request, error: Exception) -> Response:
    if not isinstance(error, MainspringError):
        raise error
    return _answer(request, error)


def _unrouted(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return _answer(request, WrongMethod(f"This address does not accept {request.method}."))
    return _answer(request, NotFound("There is no page at this address."))


def _malformed(request: Request, error: Exception) -> Response:
    """Name the invalid fields, never their values."""
    fields = [".".join(map(str, each["loc"])) for each in getattr(error, "errors", list)()]
    return _answer(request, Invalid(f"These fields are not valid: {', '.join(fields)}."))
