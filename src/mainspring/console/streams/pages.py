"""The pages of streams and their JSON API, read-only: streams are moved on the command line."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.background_cache import Looking
from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.console.streams.listing import STATES, stream_list, stream_page
from mainspring.core.ids import check_id
from mainspring.operations.streams.reports import dead_letters, listed, names, shown
from mainspring.project import Project

Limit = Annotated[int, Query(ge=1, le=1_000)]


def stream_mark(project: Project) -> str:
    """Return a text that changes with the reports of the processes that read streams; empty without streams."""
    found = [(each.owner, each.document) for name in names(project) for each in project.stream_store.members(name)]
    return hashlib.blake2b(str(found).encode(), digest_size=8).hexdigest() if found else ""


def add_stream_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes under `/streams`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "streams", "states": STATES, **content}

    @router.get("/streams")
    def show_streams(request: Request) -> Response:
        return page("streams.html", framed(request, rows=stream_list(project, looking)))

    @router.get("/streams/{name}")
    def show_stream(request: Request, name: str) -> Response:
        view = stream_page(project, looking, check_id(name, "stream"))
        return page("stream.html", framed(request, view=view, each=view.stream))


def add_stream_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/streams`."""

    @router.get("/streams")
    def list_streams() -> Answer:
        """All streams, with their partitions and the processes that read them."""
        return Answer({"streams": listed(project)})

    @router.get("/streams/{name}")
    def show_stream(name: str) -> Answer:
        """One stream."""
        return Answer({"stream": shown(project, check_id(name, "stream"))})

    @router.get("/streams/{name}/dead-letters")
    def list_dead_letters(name: str, limit: Limit = 20) -> Answer:
        """The newest dead letters of a stream, without their values."""
        return Answer({"dead_letters": dead_letters(project, check_id(name, "stream"), limit)})
