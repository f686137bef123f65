"""Middleware in front of every route: authentication, authorisation, and security headers.

The checks in order: the Host allow-list; the Origin of a request that changes something; authentication by a key or a
session; authorisation; for a session, the CSRF token of a request that changes something. Every route is behind it
automatically.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainspring.console.access.scim_answers import ROOT, scim_error
from mainspring.console.answers import error_json
from mainspring.console.permissions import Permissions
from mainspring.console.render import error_page, login_page, wants_page
from mainspring.console.server import MAX_BODY_BYTES, MAX_DELIVERY_BYTES, SIGNED
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, TooLarge
from mainspring.project import Project
from mainspring.security.hosts import allowed_hosts, check_host, check_origin
from mainspring.security.model import Principal, Session
from mainspring.security.sessions import USER, Sessions
from mainspring.security.sign_ins import SignIns

METRICS = "/metrics"
LOG_OUT = "/logout"
SIGN_IN, CALLBACK = "/login/provider", "/login/callback"
PUBLIC = frozenset({"/health/live", "/health/ready", "/login", SIGN_IN, CALLBACK})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 20
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Authenticated caller of a request; `session` if it is a browser."""

    principal: Principal
    session: Session | None
    csrf: str = ""

    @property
    def actor(self) -> str:
        """The caller as records name them."""
        return f"{self.principal.name} ({self.principal.id})"


def caller(request: Request) -> Caller:
    """Return the caller of a request that passed the guard."""
    found: Caller = request.scope["mainspring.caller"]
    return found


def form(body: bytes) -> dict[str, str]:
    """Return the fields of an encoded form, the first value of each.

    Raises:
        Invalid: There are more than 20.
    """
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Invalid(f"The form has more than {_MOST_FIELDS} fields.") from None
    return {name: values[0] for name, values in fields.items()}


async def confirmed(request: Request) -> dict[str, str]:
    """Return the fields of the form of an action.

    Raises:
        Invalid: The form does not confirm it, or has more than 20 fields.
    """
    fields = form(await request.body())
    if fields.get("confirm") != "yes":
        raise Invalid("The action is not confirmed.", fix="choose it on its page, and confirm it.")
    return fields


def cookie_name(project: Project) -> str:
    """Return the session cookie's name: browsers share cookies between ports, so the port is in it."""
    return f"mainspring_{project.settings.control.port}"


class Guard:
    """ASGI middleware, outermost.

    Args:
        routes: The application's routes, whose actions `permissions.NEEDS` says.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        project: Project,
        sessions: Sessions,
        routes: Sequence[BaseRoute],
        sign_ins: SignIns | None = None,
    ) -> None:
        self._app = app
        self._permissions = Permissions(project, routes)
        self._project = project
        self._sessions = sessions
        self._sign_ins = sign_ins
        self._hosts = allowed_hosts(project.settings.control, project.settings.allowed_hosts)
        self._cookie = cookie_name(project)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _Fortified(send, scope))
        else:  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: _Fortified) -> None:
        try:
            receive = await self._admit(scope, receive)
        except MainspringError as error:
            await self._refusal(scope, error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if not send.started:
                broken = MainspringError("An internal error occurred.", fix="see the console's log.")
                await self._refusal(scope, broken)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Authenticate, store the caller in the scope, and return a `receive` for the route. Raises `Denied`,
        `TooLarge`.
        """
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        check_host(headers.get("host"), self._hosts)
        if method not in _SAFE:
            check_origin(headers.get("origin"), headers.get("host"))
        known = None
        signed = method == "POST" and path.startswith(SIGNED) and not path.endswith("/")
        if path not in PUBLIC and not signed:
            known = await run_in_threadpool(self._identify, headers)
            if path != LOG_OUT or known.session is None:  # whoever is in may leave
                await run_in_threadpool(self._permissions.check, known.principal, scope)
            scope["mainspring.caller"] = known
        if path.startswith("/api/") and path.endswith("/"):  # of an empty id; the router would redirect it to the list
            raise NotFound(f"There is no {path}.", fix="leave out the slash at its end.")
        if method in _SAFE:
            return receive
        body = await _read(receive, MAX_DELIVERY_BYTES if signed else MAX_BODY_BYTES)
        if known is not None and known.session is not None:
            token = headers.get("x-csrf-token")
            if token is None and headers.get("content-type", "").partition(";")[0] == _FORM:
                token = form(body).get("csrf")
            self._sessions.check_csrf(known.session, token)
        return _replay(body, receive)

    def _identify(self, headers: Headers) -> Caller:
        authorization = headers.get("authorization")
        session = None
        if authorization is None:
            session = self._sessions.read(cookie_parser(headers.get("cookie", "")).get(self._cookie))
        if session is None:
            return Caller(self._project.authenticator.authenticate(authorization), None)
        principal = self._principal(session)
        return Caller(principal, session, self._sessions.csrf(session))

    def _principal(self, session: Session) -> Principal:
        if not session.principal_id.startswith(USER):
            return self._project.authenticator.principal(session.principal_id)
        if self._sign_ins is None:
            raise Denied("This console has no identity provider any more.")
        return self._project.authenticator.user(self._sign_ins.account(session))

    def _refusal(self, scope: Scope, error: MainspringError) -> Response:
        status = codes_of(error).http
        if scope["path"].startswith(f"{ROOT}/"):
            return scim_error(error)
        if not wants_page(scope):
            return error_json(error)
        if status == 401:
            return login_page(scope, status=401, provider=SIGN_IN if self._sign_ins is not None else "")
        return error_page(scope, error)


async def _read(receive: Receive, largest: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > largest:
            raise TooLarge(f"The request's body is larger than {largest // 1024} KiB.")
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


class _Fortified:
    """`send` that adds the headers of every response."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self.started = False
        scope["mainspring.nonce"] = self._nonce = secrets.token_urlsafe(16)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in self._fixed().items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await self._send(message)

    def _fixed(self) -> dict[str, Any]:
        return {
            # The nonce is for the login page alone, whose style is inline, since nothing else is served without a key.
            "content-security-policy": f"{_POLICY}; style-src 'self' 'nonce-{self._nonce}'",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            # Not `no-referrer`: with it a browser sends `Origin: null` along with our own forms.
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }
