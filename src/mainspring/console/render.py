"""Rendering of templates. Everything is escaped unless a function of this package built it as markup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.types import Scope

from mainspring.console import assets, formats, same
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError
from mainspring.features.model import shown_status

_TITLES = {
    400: "Invalid request",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    503: "Temporarily unavailable",
}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(str(__package__)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (
        formats.whole,
        formats.number,
        formats.fixed,
        formats.share,
        formats.milliseconds,
        formats.duration,
        formats.instant,
        formats.exact,
        formats.day,
        formats.ago,
        formats.value,
        formats.answer,
        formats.signed,
        formats.tiny,
        formats.e_value,
        formats.short,
        formats.size,
        formats.digests,
        formats.coded,
    ):
        environment.filters[filter_.__name__] = filter_
    environment.globals["missing"] = formats.missing
    environment.globals["shown_status"] = shown_status
    environment.globals["span"] = formats.span
    environment.globals["cli"] = same.cli
    environment.globals["python"] = same.python
    environment.globals["asset"] = assets.address
    return environment


_ENVIRONMENT = _environment()


def page(template: str, content: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
    """Return the rendered template."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(content), status)


def login_page(
    scope: Scope,
    *,
    status: int = 200,
    refused: str | None = None,
    wanted: str | None = None,
    ticket: str = "",
    provider: str = "",
) -> HTMLResponse:
    """Return the log-in form; after it, the browser goes to `wanted` (by default the requested page).

    Args:
        ticket: Of a log-in link: it takes the place of a key.
        provider: Address of the sign-in at an identity provider; empty without one.
    """
    content = {"refused": refused, "ticket": ticket, "wanted": wanted or _address(scope), "provider": provider}
    content |= _inline_style(scope)
    response = page("login.html", content, status=status)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def onward_page(scope: Scope, address: str, *, done: str = "in") -> HTMLResponse:
    """Return a page that goes on to an address at once, as a page of ours: a redirect would be another's."""
    return page("onward.html", {"address": address, "done": done, **_inline_style(scope)}, status=200)


def _address(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def error_page(scope: Scope, error: MainspringError) -> HTMLResponse:
    """Return the error page."""
    status = codes_of(error).http
    title = _TITLES.get(status, "Internal error")
    inside = "mainspring.caller" in scope  # the navigation is shown to authenticated callers only
    content = {"title": title, "error": error, "status": status, "inside": inside, **_inline_style(scope)}
    return page("error.html", content, status=status)


def _inline_style(scope: Scope) -> dict[str, Any]:
    # Under the nonce of the response's policy: a linked stylesheet would need a route without a key.
    style = Markup(assets.asset("console.css").content.decode())  # noqa: S704  (our own file)
    return {"style": style, "nonce": scope["mainspring.nonce"]}


def wants_page(scope: Scope) -> bool:
    """Return whether the request comes from a browser rather than a program."""
    path: str = scope["path"]
    return not path.startswith(("/api", "/health", "/static")) and "text/html" in Headers(scope=scope).get("accept", "")
