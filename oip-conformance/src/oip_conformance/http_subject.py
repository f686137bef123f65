"""The protocol over HTTP/1.1, by the standard library: a server can be examined from anywhere Python is."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from oip_conformance.check import Failed
from oip_conformance.subject import Subject

WAITS_S = (0.1, 0.5, 1.0, 2.0)  # whatever the server asks for: nobody waits an hour for a check
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One response. Header names are in lower case; the body is as sent, not decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def told(self) -> str:
        return f"answered {self.status}: {self.shown()}"

    def json(self) -> Any:
        """Return the body's value.

        Raises:
            Failed: The body is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"the body of the {self.status} is not JSON: {self.shown()}") from None

    def object(self) -> dict[str, Any]:
        """Return the body's JSON object.

        Raises:
            Failed: The body is none.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise Failed(f"the body is JSON, not an object: {self.shown()}")
        return value

    def error(self) -> str:
        """Return the status of a refusal.

        Raises:
            Failed: The status is not that of an error, or the body is not the specification's error object.
        """
        if self.status < 400:
            raise Failed(self.told)
        if not isinstance(self.object().get("error"), str):
            raise Failed(f"answered {self.status} without a text in 'error': {self.shown()}")
        return f"answered {self.status}"

    def shown(self) -> str:
        """Return the beginning of the body, for people."""
        text = self.body[:120].decode(errors="replace")
        return (" ".join(text.split()) or "(empty)") + ("..." if len(self.body) > 120 else "")


class Http:
    """A server by its URL, over one connection that is kept open. A request is sent again if its connection was closed
    while idle.

    Args:
        url: `http://host:port` or `https://`, with the path that `/v2` stands under, if any.
        headers: Sent with every request.
        timeout_s: For each response.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an HTTP address.")
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
    ) -> HttpAnswer:
        """Return the server's response. A server that is busy, and says so with `Retry-After`, is asked again.

        Raises:
            Failed: There was no response, or it was not HTTP.
            OSError: The server does not accept connections.
        """
        sent = {**self._headers, **(headers or {})}
        for wait_s in WAITS_S:
            answer = self._once(method, path, body, sent)
            if answer.status not in (429, 503) or "retry-after" not in answer.headers:
                return answer
            time.sleep(wait_s)
        return self._once(method, path, body, sent)

    def _once(self, method: str, path: str, body: bytes | None, sent: Mapping[str, str]) -> HttpAnswer:
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

    def _try(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> HttpAnswer | None:
        try:
            self._connection.request(method, self._prefix + path, body, dict(headers))
            reply = self._connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return HttpAnswer(reply.status, found, reply.read())
        except (OSError, HTTPException):
            self._connection.close()
            return None


class HttpSubject(Subject):
    """A model of a server over HTTP. Without `model`: the first one that the server's repository index names.

    Raises:
        ValueError: `model` is empty and there is no index.
    """

    def __init__(self, http: Http, model: str = "", given: Mapping[str, Any] | None = None) -> None:
        self.http = http
        super().__init__(model or self._first(), given)
        self.path = self.path_of()

    def path_of(self, model: str = "", version: str = "") -> str:
        """Return the path of a model, or of one of its versions."""
        path = f"/v2/models/{quote(model or self.model, safe='')}"
        return f"{path}/versions/{version}" if version else path

    def get(self, path: str) -> HttpAnswer:
        return self.http.ask("GET", path)

    def server_metadata(self) -> HttpAnswer:
        return self.get("/v2")

    def model_metadata(self, model: str = "", version: str = "") -> HttpAnswer:
        return self.get(self.path_of(model, version))

    def ready(self, model: str = "", version: str = "") -> bool:
        return self.get(f"{self.path_of(model, version)}/ready").ok

    def infer(self, request: Any, *, model: str = "", version: str = "") -> HttpAnswer:
        """Ask for an inference; a `request` of bytes is sent unchanged."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.post(body, _JSON, model=model, version=version)

    def post(self, body: bytes, headers: Mapping[str, str], *, model: str = "", version: str = "") -> HttpAnswer:
        """Ask for an inference by a body of any form."""
        return self.http.ask("POST", f"{self.path_of(model, version)}/infer", body, headers)

    def index(self) -> HttpAnswer:
        """Ask for the repository index, an extension."""
        return self.http.ask("POST", "/v2/repository/index", b"{}", _JSON)

    @cached_property
    def extensions(self) -> list[Any]:
        """The extensions that the server's metadata announces."""
        answer = self.server_metadata()
        found = answer.object().get("extensions") if answer.ok else None
        return found if isinstance(found, list) else []

    def _first(self) -> str:
        answer = self.index()
        for each in answer.json() if answer.ok else []:
            if each.get("state", "READY") == "READY":
                return str(each["name"])
        raise ValueError(f"its repository index answered {answer.status} and names no model; say --model")
