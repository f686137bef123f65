"""One request over HTTP to a configured address, limited in time and size.

Redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mainspring.core.deadlines import closing_after

FAILURES = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool  # False: the body was longer, and was cut at the limit


def exchange(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    within_s: float,
    most_bytes: int,
    ca: str | None = None,
    cert: str | None = None,
    cert_key: str | None = None,
) -> Reply:
    """Send a request and return the response.

    Args:
        within_s: Limit of the connection's opening, and again of all that follows.
        most_bytes: Limit of the response's body, of which the rest is not read.
        ca: PEM file of authorities; by default the machine's.
        cert: PEM file of the certificate that is shown; by default none is.
        cert_key: PEM file of its key, not encrypted; by default `cert` has it.

    Raises:
        OSError, HTTPException, ValueError: No response, the `FAILURES`; a caller tells them with its own words.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, cert_key, password=lambda: b"")  # for an encrypted key OpenSSL would ask
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=within_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=within_s)
    try:
        connection.connect()
        began = time.monotonic()
        with closing_after(connection.sock, within_s):
            path = parts.path or "/"
            sent = {"User-Agent": "mainspring", **(headers or {})}
            connection.request(method, f"{path}?{parts.query}" if parts.query else path, body, sent)
            response = connection.getresponse()
            content = response.read(most_bytes + 1)
        if time.monotonic() - began >= within_s:  # a body without a length ends where the connection was shut
            raise TimeoutError("it took too long")
    finally:
        connection.close()
    named = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, named, content[:most_bytes], len(content) <= most_bytes)
