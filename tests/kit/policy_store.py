"""Moto's S3 behind a gate that follows IAM policies: moto knows no conditions, and so no rights below a bucket.

The gate evaluates `Allow` statements with `StringLike`, of the access key in the request; signatures are not checked.
As on S3, an object that is absent is 404 only to those who may list its name, and else 403; denials name the action.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote

_KEY = re.compile(r"Credential=([^/]+)/")
_DENIED = "<Error><Code>AccessDenied</Code><Message>{}</Message></Error>"
_OBJECT = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject",
           "DELETE": "s3:DeleteObject"}  # fmt: skip


class Gate:
    """A WSGI application; `policies` are by access key, and a key without one may do everything.

    `terse` denials say no more than "Access Denied", as those of other stores do.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.policies: dict[str, Mapping[str, Any]] = {}
        self.terse = False

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        found = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        user = found[1] if found else ""
        policy = self.policies.get(user)
        if policy is None:
            allowed: Iterable[bytes] = self._app(environ, start)
            return allowed
        lacking = _lacking(policy, environ)
        if not lacking:
            answered: list[Any] = []
            content: Iterable[bytes] = self._app(environ, lambda *answer: answered.extend(answer))
            if answered[0].startswith("404"):
                lacking = _lacking_to_know(policy, environ)
            if not lacking:
                start(*answered)
                return content
        said = "Access Denied"
        if not self.terse:
            said = f"User: {user} is not authorized to perform: {lacking} because no identity-based policy allows it"
        body = _DENIED.format(said).encode()
        start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


def _lacking(policy: Mapping[str, Any], environ: Mapping[str, Any]) -> str:
    """Return the action that a request needs and the policy does not allow."""
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    asked = parse_qs(environ.get("QUERY_STRING", ""))
    if not key and environ["REQUEST_METHOD"] == "GET":
        return _listing(policy, bucket, asked.get("prefix", [""])[0])
    if not key:  # of several objects, or of the bucket itself
        return "an action that the gate does not know"
    copied = environ.get("HTTP_X_AMZ_COPY_SOURCE")
    needed = [(_OBJECT[environ["REQUEST_METHOD"]], f"{bucket}/{key}")]
    needed += [("s3:GetObject", unquote(copied).lstrip("/"))] if copied else []
    return next((name for name, at in needed if not _permitted(policy, name, f"arn:aws:s3:::{at}", {})), "")


def _lacking_to_know(policy: Mapping[str, Any], environ: Mapping[str, Any]) -> str:
    """Return the action that is needed to learn that an object is absent: S3 takes its name as the prefix."""
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    return _listing(policy, bucket, key) if key and environ["REQUEST_METHOD"] in ("GET", "HEAD") else ""


def _listing(policy: Mapping[str, Any], bucket: str, prefix: str) -> str:
    allowed = _permitted(policy, "s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": prefix})
    return "" if allowed else "s3:ListBucket"


def _permitted(policy: Mapping[str, Any], action: str, resource: str, values: Mapping[str, str]) -> bool:
    return any(
        action in each["Action"]
        and any(fnmatchcase(resource, wanted) for wanted in each["Resource"])
        and all(
            any(fnmatchcase(values.get(name, ""), wanted) for wanted in patterns)
            for name, patterns in each.get("Condition", {}).get("StringLike", {}).items()
        )
        for each in policy["Statement"]
        if each["Effect"] == "Allow"
    )


@contextmanager
def gated_store() -> Iterator[tuple[str, Gate]]:
    """Give the address of a store of its own, and its gate."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", gate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
