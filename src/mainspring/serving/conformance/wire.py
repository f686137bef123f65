"""HTTP/1.1 by the standard library, so that a server can be examined from anywhere Python is."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from mainspring.serving.conformance.results import Failed

_WAITS_S = (0.1, 0.5, 1.0, 2.0)  # whatever Retry-After says: nobody waits an hour for a check


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply. Header names are in lower case; the body is as sent, not decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """Return the body's value.

        Raises:
            Failed: It is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"the body of the {self.status} is not JSON: {self.shown()}") from None

    def object(self) -> dict[str, Any]:
        """Return the body's JSON object.

        Raises:
            Failed: It is none.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise Failed(f"the body is JSON, not an object: {self.shown()}")
        return value

    def shown(self) -> str:
        """Return the body's beginning, for people."""
        text = self.body[:120].decode(errors="replace")
        return (" ".join(text.split()) or "(empty)") + ("..." if len(self.body) > 120 else "")


class Http:
    """A server by its URL, over one connection that is kept open; a request whose connection was closed while it lay
    idle is sent again.

    Args:
        url: `http://host:port` or `https://`, with the path that `/v2` stands under, if any.
        headers: Sent with every request.
        timeout_s: For each answer.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no HTTP address.")
        self._prefix = parts.path.rstrip("/").removesuffix("/v2")
        self._headers = dict(headers or {})
        host, port = parts.hostname, parts.port
        self._connection = (
            HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
            if parts.scheme == "https"
            else HTTPConnection(host, port, timeout=timeout_s)
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the server's answer; one that is busy for the moment, and says so, is asked again.

        Raises:
            Failed: There was none, or it was not HTTP.
            OSError: The server does not take connections.
        """
        sent = {**self._headers, **(headers or {})}
        for wait_s in _WAITS_S:
            answer = self._once(method, path, body, sent)
            if answer.status not in (429, 503) or "retry-after" not in answer.headers:
                return answer
            time.sleep(wait_s)
        return self._once(method, path, body, sent)

    def _once(self, method: str, path: str, body: bytes | None, sent: Mapping[str, str]) -> Answer:
        if self._connection.sock is None:
            self._connection.connect()
        elif (answer := self._try(method, path, body, sent)) is not None:
            return answer
        else:
            self._connection.connect()
        answer = self._try(method, path, body, sent)
        if answer is None:
            raise Failed("the server closed the connection without an answer, or did not answer in time")
        return answer

    def _try(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer | None:
        try:
            self._connection.request(method, self._prefix + path, body, dict(headers))
            reply = self._connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, found, reply.read())
        except (OSError, HTTPException):
            self._connection.close()
            return None

    def close(self) -> None:
        self._connection.close()
