"""The pages of collections and their JSON API: what was built, how well its search does, and a search to try."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.background_cache import Looking
from mainspring.console.collections.listing import CollectionPage, Hits, collection_page, collection_row, hits_of
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller
from mainspring.console.paging import Begin, paged
from mainspring.console.permissions import may, seen
from mainspring.console.render import page
from mainspring.core.errors import Denied, MainspringError
from mainspring.core.ids import check_id
from mainspring.operations.collections import CollectionReport, collection_report, collections
from mainspring.project import Project
from mainspring.security.model import Action
from mainspring.vectors.model import Mode
from mainspring.vectors.searching import Found

Words = Annotated[str, Query(max_length=2_000)]
Tenant = Annotated[str, Query(max_length=400)]


def add_collection_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes under `/collections`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "collections", **content}

    def viewed(request: Request, name: str) -> CollectionPage:
        chosen = project.definitions.collection(check_id(name, "collection")).evaluation
        rows = chosen is not None and may(request, project, Action.TABLE_ROWS, f"table/{chosen.source.name}")
        incidents = may(request, project, Action.INCIDENT_READ, f"endpoint/{name}")
        return collection_page(project, looking, name, queries=rows, incidents=incidents)

    @router.get("/collections")
    def show_collections(request: Request, begin: Begin = 0) -> Response:
        declared = [each for _, each in sorted(project.definitions.collections.items())]
        known = seen(request, project, Action.TABLE_READ, "table", declared, lambda each: each.source.name)
        of = paged([*known], begin).made(lambda each: collection_row(project, looking, each.name))
        return page("collections.html", framed(request, of=of))

    @router.get("/collections/{name}")
    def show_collection(request: Request, name: str) -> Response:
        view = viewed(request, name)
        return page(
            "collection.html", framed(request, view=view, each=view.collection, found=None, tenant="", mode=view.mode)
        )

    @router.get("/collections/{name}/search")
    def search_page(
        request: Request, name: str, q: Words = "", tenant: Tenant = "", mode: Mode | None = None, reveal: bool = False
    ) -> Response:
        view = viewed(request, name)
        found = None
        if q.strip():
            try:
                found = hits_of(project, caller(request).principal, name, q, tenant or None, mode=mode, reveal=reveal)
            except Denied:
                raise
            except MainspringError as error:
                found = Hits(q, (), 0.0, str(error))
        content = {"view": view, "each": view.collection, "found": found, "tenant": tenant, "mode": mode or view.mode}
        return page("collection.html", framed(request, **content))


def add_collection_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/collections`."""

    @router.get("/collections")
    @answers(collections=list[CollectionReport])
    def list_collections(request: Request) -> Answer:
        """All collections, with their newest builds."""
        known = seen(request, project, Action.TABLE_READ, "table", collections(project), lambda each: each.source)
        return Answer({"collections": known})

    @router.get("/collections/{name}")
    @answers(CollectionReport)
    def show_collection(name: str) -> Answer:
        """A collection with its newest build."""
        return Answer(collection_report(project, check_id(name, "collection")))

    @router.get("/collections/{name}/search")
    @answers(hits=list[Found], ms=float)
    def search_collection(
        request: Request, name: str, q: Words, tenant: Tenant = "", mode: Mode | None = None, reveal: bool = False
    ) -> Answer:
        """The chunks of a collection that are the nearest to a query. Values that identify a person are withheld, and
        such a text is not searched; with `reveal=true` both are for those who may see them, with an event in the audit
        log."""
        principal = caller(request).principal
        found = hits_of(project, principal, check_id(name, "collection"), q, tenant or None, mode=mode, reveal=reveal)
        return Answer({"hits": [each.found for each in found.hits], "ms": found.ms})
