"""Sign-in at an identity provider: the way there and back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.guard import CALLBACK, SIGN_IN
from mainspring.console.render import login_page, onward_page
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import Denied, MainspringError, Overloaded
from mainspring.project import Project
from mainspring.security.model import AuditEvent
from mainspring.security.sessions import LIFETIME
from mainspring.security.sign_ins import ATTEMPT_US, SignIns

_log = logging.getLogger(__name__)

Refuse = Callable[[Request, str], Awaitable[None]]


def add_sign_in(
    router: APIRouter,
    project: Project,
    sign_ins: SignIns,
    cookie: str,
    own_page: Callable[[str], str],
    check: Callable[[Request], Awaitable[None]],
    refuse: Refuse,
) -> None:
    """Add the routes of the sign-in.

    Args:
        cookie: Name of the session's cookie.
        own_page: Returns a page of the console, whatever was asked for.
        check: Counts an attempt of this address; raises `Overloaded`. The way back needs one that has begun.
        refuse: Records a refused attempt.
    """
    attempt_cookie = f"{cookie}_sign_in"

    @router.get(SIGN_IN)
    async def begin(request: Request, next: str = "/") -> Response:
        wanted = own_page(next)
        try:
            await check(request)
            address, attempt = await run_in_threadpool(sign_ins.begin, wanted)
        except MainspringError as error:
            return await refused(request, error, wanted)
        response = RedirectResponse(address, status_code=303)
        response.set_cookie(
            attempt_cookie,
            attempt,
            max_age=ATTEMPT_US // 1_000_000,
            path="/login",
            httponly=True,
            samesite="lax",  # the provider's page sends the browser back
            secure=request.url.scheme == "https",
        )
        return response

    @router.get(CALLBACK)
    async def finish(request: Request) -> Response:
        answer = dict(request.query_params)
        try:
            found = await run_in_threadpool(sign_ins.finish, request.cookies.get(attempt_cookie), answer)
        except MainspringError as error:
            return await refused(request, error, "/")
        who = f"{found.account.name} ({found.account.id})"
        events = [AuditEvent(project.wall.now(), who, "console.login", "console", "identity provider")]
        if found.new:
            account = f"user/{found.account.id}"
            detail = f"first sign-in, groups at the identity provider: {list(found.account.provider_groups)}"
            events.insert(0, AuditEvent(project.wall.now(), who, "accounts.add", account, detail))
        await run_in_threadpool(project.audit.append, events)
        # Not a redirect: the browser would count it as the provider's, and keep the strict cookie back.
        response = onward_page(request.scope, own_page(found.wanted))
        response.delete_cookie(attempt_cookie, path="/login", httponly=True, samesite="lax")
        response.set_cookie(
            cookie,
            found.cookie,
            max_age=LIFETIME // 1_000_000,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def refused(request: Request, error: MainspringError, wanted: str) -> Response:
        shown = str(error)
        if isinstance(error, Denied):
            await refuse(request, error.what)
        elif not isinstance(error, Overloaded):  # it names addresses and files of this installation
            _log.warning("A sign-in failed: %s", error)
            shown = "The sign-in does not work now. Fix: try again later, or ask the operator of this installation."
        return login_page(request.scope, status=codes_of(error).http, refused=shown, wanted=wanted, provider=SIGN_IN)
