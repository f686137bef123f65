"""Evidence: the newest report of each framework, signed, for those who may read the audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.core.time import parse_instant
from mainspring.operations.evidence.reporting import FORMS, newest, newest_file
from mainspring.project import Project

_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json"}
Name = Annotated[str, Path(pattern="^[a-z0-9-]{1,40}$")]
Form = Annotated[str, Path(pattern=f"^({'|'.join(FORMS)})$")]


def add_evidence_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/evidence`."""

    @router.get("/evidence")
    def show_evidence(request: Request) -> Response:
        rows = [(each, parse_instant(each.at) if each.at else None) for each in newest(project)]
        return page("evidence.html", {**frame(request), "section": "access", "rows": rows})

    @router.get("/evidence/{framework}/{form}")
    def download_evidence(framework: Name, form: Form) -> Response:
        """A report as it was signed: a file to keep, not a page of the console."""
        content = newest_file(project, framework, form)
        headers = {"content-disposition": f'attachment; filename="{framework}.{form}"'}
        return Response(content, media_type=_TYPES[form], headers=headers)


def add_evidence_api(router: APIRouter, project: Project) -> None:
    """Add `/api/evidence`."""

    @router.get("/evidence")
    def list_evidence() -> Answer:
        """The newest report of each framework: when it was measured, and how many controls are in each state."""
        return Answer({"reports": [asdict(each) for each in newest(project)]})
