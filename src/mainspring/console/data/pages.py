"""The pages of tables and dataset commits."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.background_cache import Looking
from mainspring.console.data.commits import commit_list, commit_page, differences
from mainspring.console.data.profile_picture import column_picture
from mainspring.console.data.tables import find_source, profiled, source_page, source_rows, table_list
from mainspring.console.features.pages import Frame
from mainspring.console.features.values import page_of, source_address
from mainspring.console.guard import caller
from mainspring.console.lineage_picture import picture
from mainspring.console.permissions import seen
from mainspring.console.render import page
from mainspring.core.errors import Denied, MainspringError
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.data.model import REASON
from mainspring.operations.data.lineage import SOURCE
from mainspring.project import Project
from mainspring.security.model import Action

Of = Annotated[str, Query(pattern="^(landed|quarantine)$")]
Reveal = Annotated[bool, Query()]
SHOWN_ROWS = 50


def add_data_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes under `/data`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "data", "source_address": source_address, **content}

    @router.get("/data")
    def show_tables(request: Request) -> Response:
        tables = partial(seen, request, project, Action.TABLE_READ, "table")
        return page("data.html", framed(request, found=table_list(project, tables)))

    @router.get("/data/commits")
    def show_commits(request: Request) -> Response:
        return page("commits.html", framed(request, commits=commit_list(project)))

    @router.get("/data/commits/{commit}")
    def show_commit(request: Request, commit: str, to: str | None = None) -> Response:
        other = check_id(to, "commit") if to else None
        view = commit_page(project, check_id(commit, "commit"), other)
        compared = differences(project, looking, view)
        differing = {each.table: each for each in compared.found or ()}
        return page("commit.html", framed(request, view=view, seen=compared, differing=differing))

    @router.get("/data/tables/{name}/rows")
    def show_rows(request: Request, name: str, of: Of = "landed", reveal: Reveal = False) -> Response:
        source = find_source(project, check_id(name, "source"))
        rows, problem = [], ""
        try:
            rows = source_rows(project, caller(request).principal, source, of, SHOWN_ROWS, reveal=reveal)
        except Denied:
            raise
        except MainspringError as error:
            problem = str(error)
        moments = [name for name, dtype in source.columns.items() if dtype is DType.Timestamp]
        content = {"source": source, "of": of, "rows": rows, "columns": list(source.columns), "problem": problem}
        return page("source_rows.html", framed(request, **content, reason=REASON, moments=moments, revealed=reveal))

    @router.get("/data/tables/{name}")
    @router.get("/data/{name}")
    def show_source(request: Request, name: str) -> Response:
        source = find_source(project, check_id(name, "source"))
        shown, seen = source_page(project, source), profiled(project, looking, source)
        pictures = {}
        if seen.found:
            pictures = {each.column: column_picture(each, seen.found.rows) for each in seen.found.columns}
        drawn = picture(shown.lineage, f"{SOURCE}:{name}", page_of)
        return page("source.html", framed(request, view=shown, seen=seen, pictures=pictures, picture=drawn))
