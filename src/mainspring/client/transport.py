"""Shared httpx code of the blocking and the asynchronous client: set-up, requests, and translation of errors."""

from __future__ import annotations

from collections.abc import Mapping
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

from mainspring.client.certificates import Certificates, client_is_refused, server_is_distrusted
from mainspring.client.talk import Answer, Loss, Lost, Send
from mainspring.core.errors import Invalid, MissingExtra

if TYPE_CHECKING:
    import httpx

_IDLE_S = 30.0  # a connection that was idle for longer is not reused: the server may have closed it


def library() -> Any:
    """Return httpx, imported when the first client is made.

    Raises:
        MissingExtra: httpx is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtra("The Python client (httpx)", "client") from error
    return httpx


def options(
    url: str,
    key: str | None,
    headers: Mapping[str, str] | None,
    tls: SSLContext | Certificates | None,
    connections: int,
) -> Any:
    """Return the arguments of httpx's client.

    Raises:
        Invalid: `url` is not an HTTP address, or `tls` names files that cannot be used.
    """
    httpx = library()
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"{url!r} is not an HTTP address.", fix="write it as http://127.0.0.1:8080 or https://...")
    sent = {"accept-encoding": "identity", **{name.lower(): value for name, value in (headers or {}).items()}}
    if key is not None:
        sent["authorization"] = f"Bearer {key}"
    return {
        "base_url": url.rstrip("/").removesuffix("/v2"),
        "headers": sent,
        "verify": tls.context() if isinstance(tls, Certificates) else True if tls is None else tls,
        # The environment is ignored: apart from a proxy it has nothing useful, and .netrc would replace the key.
        "trust_env": False,
        "limits": httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S
        ),
    }


def asked(step: Send) -> Any:
    """Return the arguments of httpx's request."""
    return {
        "method": step.method,
        "url": step.path,
        "headers": dict(step.headers),
        "content": step.body or None,
        "timeout": step.timeout_s,
    }


def lost_by(error: httpx.HTTPError | OSError) -> Lost:
    """Return how far a request got that ended with an error of httpx, or of TLS below it."""
    httpx = library()
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if server_is_distrusted(why):
        return Lost(Loss.DISTRUSTED, why)
    if client_is_refused(why):
        return Lost(Loss.UNKNOWN, why)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return Lost(Loss.UNSENT, why)
    if isinstance(error, httpx.TimeoutException):
        return Lost(Loss.LATE, why)
    return Lost(Loss.BROKEN, why)


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)
