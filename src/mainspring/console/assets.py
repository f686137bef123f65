"""Static files of the pages: compressed once, and cached by browsers until their content changes."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mainspring.core.errors import NotFound

# By the name under which each is served: no path from a client reaches the file system.
_FILES = {
    "console.css": ("console.css", "text/css"),
    "console.js": ("console.js", "text/javascript"),
    "tools.js": ("tools.js", "text/javascript"),
    "uplot.css": ("uplot-1.6.32/uPlot.min.css", "text/css"),
    "uplot.js": ("uplot-1.6.32/uPlot.iife.min.js", "text/javascript"),
}
# Private, since only callers with a key get them.
_FOR_EVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent. `digest` identifies its content."""

    content: bytes
    compressed: bytes
    kind: str
    digest: str


@cache
def asset(name: str) -> Asset:
    """Return a file by the name under which it is served.

    Raises:
        NotFound: There is no file of that name.
    """
    if name not in _FILES:
        raise NotFound(f"There is no file {name[:100]!r}.")
    path, kind = _FILES[name]
    content = files(__package__).joinpath("static", path).read_bytes()
    return Asset(content, gzip.compress(content, mtime=0), kind, hashlib.sha256(content).hexdigest()[:16])


def address(name: str) -> str:
    """Return the address of a file; it changes with the content."""
    return f"/static/{name}?v={asset(name).digest}"


def add_assets(router: APIRouter) -> None:
    """Add the route of the files."""

    @router.get("/static/{name}")
    def show_file(request: Request, name: str, v: str = "") -> Response:
        found = asset(name)
        etag = f'"{found.digest}"'
        headers = {
            "cache-control": _FOR_EVER if v == found.digest else _ASK_AGAIN,
            "etag": etag,
            "vary": "accept-encoding",
        }
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(found.content, media_type=found.kind, headers=headers)
        return Response(found.compressed, media_type=found.kind, headers=headers | {"content-encoding": "gzip"})
