"""Moto's S3 behind a gate that follows IAM policies: moto knows no conditions, and so no rights below a bucket.

The gate evaluates `Allow` statements with `StringLike`, of the access key in the request; signatures are not checked.
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
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_OBJECT = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject",
           "DELETE": "s3:DeleteObject"}  # fmt: skip


class Gate:
    """A WSGI application; `policies` are by access key, and a key without one may do everything."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.policies: dict[str, Mapping[str, Any]] = {}

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        found = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        policy = self.policies.get(found[1]) if found else None
        if policy is not None and not _allowed(policy, environ):
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))])
            return [_DENIED]
        return self._app(environ, start)  # type: ignore[no-any-return]


def _allowed(policy: Mapping[str, Any], environ: Mapping[str, Any]) -> bool:
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    asked = parse_qs(environ.get("QUERY_STRING", ""))
    if not key and environ["REQUEST_METHOD"] == "GET":
        action, resource = "s3:ListBucket", f"arn:aws:s3:::{bucket}"
    elif key:
        action, resource = _OBJECT[environ["REQUEST_METHOD"]], f"arn:aws:s3:::{bucket}/{key}"
    else:  # of several objects, or of the bucket itself
        return False
    values = {"s3:prefix": asked.get("prefix", [""])[0]}
    copied = environ.get("HTTP_X_AMZ_COPY_SOURCE")
    if copied and not _permitted(policy, "s3:GetObject", f"arn:aws:s3:::{unquote(copied).lstrip('/')}", values):
        return False
    return _permitted(policy, action, resource, values)


def _permitted(policy: Mapping[str, Any], action: str, resource: str, values: Mapping[str, str]) -> bool:
    return any(
        action in each["Action"]
        and any(fnmatchcase(resource, wanted) for wanted in each["Resource"])
        and all(
            any(fnmatchcase(values[name], wanted) for wanted in patterns)
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
