"""The audit log: the page with its filters, and the same over the API and as CSV."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, Json
from mainspring.console.downloads import csv_file
from mainspring.console.endpoints.api import Limit
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller
from mainspring.console.render import page
from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.time import format_instant, parse_end, parse_instant
from mainspring.operations.anchoring import receive_head
from mainspring.operations.auditing import VERIFIED
from mainspring.project import Project
from mainspring.security.model import AuditEvent, AuditFilter
from mainspring.security.tree_heads import decoded

Word = Annotated[str, Query(max_length=200)]
Moment = Annotated[str, Query(max_length=40)]
Before = Annotated[int | None, Query(ge=1, le=2**62)]
_FIELDS = ("actor", "action", "resource", "detail")
_PAGE = 50
_MOST_ROWS = 100_000  # of a file


@dataclass(frozen=True, slots=True)
class AskedEvents:
    """Filters of the audit log, as an address has them; the times are ISO 8601."""

    actor: Word = ""
    action: Word = ""
    resource: Word = ""
    detail: Word = ""
    since: Moment = ""
    until: Moment = ""

    def filter(self) -> AuditFilter:
        """Return the filter.

        Raises:
            Invalid: A time cannot be read.
        """
        end = parse_end(self.until) if self.until else None
        since = parse_instant(self.since) if self.since else None
        return AuditFilter(self.actor, self.action, self.resource, self.detail, since, end)


class SentHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A head of another installation's audit log, with the proof from the one before and the size of that."""

    head: Annotated[str, msgspec.Meta(max_length=64 << 10)]
    proof: Annotated[list[Annotated[str, msgspec.Meta(max_length=44)]], msgspec.Meta(max_length=128)] = []
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


Asked = Annotated[AskedEvents, Depends()]


def add_audit_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/audit`."""

    @router.get("/audit")
    def show_audit(request: Request, asked: Asked, before: Before = None) -> Response:
        found, refused = [], None
        try:
            wanted = asked.filter()
        except Invalid as error:
            refused = error
        else:
            found = project.audit.search(wanted, before=before, limit=_PAGE + 1)
        rows = found[:_PAGE]
        tree, verified = project.audit.tree(), project.audit.search(AuditFilter(action=VERIFIED), limit=1)
        kept = urlencode({name: text for name, text in asdict(asked).items() if text})
        content: dict[str, Any] = {
            "asked": asdict(asked),
            "rows": rows,
            "tree": tree,
            "verified": verified[0].event if verified else None,
            "before": before,
            "next": rows[-1].number if len(found) > _PAGE else None,
            "kept": kept,
            "refused": refused,
        }
        return page(
            "audit.html", {**frame(request), "section": "access", **content}, status=400 if refused is not None else 200
        )

    @router.get("/audit.csv")
    def download_audit(asked: Asked) -> Response:
        found = project.audit.search(asked.filter(), limit=_MOST_ROWS)
        events = [each.event for each in found]
        rows = [(format_instant(each.at), each.actor, each.action, each.resource, each.detail) for each in events]
        return csv_file("audit.csv", ("at", *_FIELDS), rows)


def add_audit_api(router: APIRouter, project: Project) -> None:
    """Add `/api/audit`."""

    @router.get("/audit")
    def list_audit(asked: Asked, before: Before = None, limit: Limit = 100) -> Answer:
        """Audit events with every given part, newest first; `action` is the beginning, the times are ISO 8601.

        `next` is the `before` of the next page.
        """
        found = project.audit.search(asked.filter(), before=before, limit=limit + 1)
        rows = found[:limit]
        follows = rows[-1].number if len(found) > limit else None
        return Answer({"events": [_shown(each.event) for each in rows], "next": follows})

    @router.get("/audit/heads")
    def list_heads(
        key: Annotated[str, Query(pattern="^[0-9a-f]{64}$")], before: Before = None, limit: Limit = 100
    ) -> Answer:
        """Heads of another installation's audit log that were anchored here, newest first, by its public key.

        `next` is the `before` of the next page.
        """
        found = project.received_heads.of(bytes.fromhex(key), taken=True, before=before, limit=limit + 1)
        rows = found[:limit]
        return Answer(
            {
                "heads": [each.note for each in rows],
                "next": rows[-1].number if len(found) > limit else None,
            }
        )

    @router.post("/audit/heads", status_code=201)
    async def add_head(request: Request, sent: Annotated[SentHead, Depends(Body(SentHead))]) -> Json:
        """Anchor `{"head", "proof", "size"}`: a signed head, in base 64 the proof from that of a size."""
        try:
            proof = [decoded(each) for each in sent.proof]
        except Corrupt as error:
            raise Invalid(error.what, fix="send each hash in base 64.") from error
        by = caller(request).principal
        await run_in_threadpool(receive_head, project, sent.head, proof, by, base=sent.size)
        return Json({"anchored": True}, 201)


def _shown(event: AuditEvent) -> dict[str, object]:
    """Return an event without the person whom it is about: a key with the scope `view` may not look people up."""
    shown = asdict(event)
    del shown["subject"]
    return shown
