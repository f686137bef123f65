"""API keys: the page, and the same over the API. All of it needs the scope manage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, Json, answers
from mainspring.console.endpoints.api import Id
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed, form
from mainspring.console.render import page
from mainspring.core.errors import Conflict, Invalid, MainspringError
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.project import Project
from mainspring.security.keys import issue, person_of
from mainspring.security.model import ApiKey, AuditEvent, KeyScope, Principal

STATES = {"valid": ("Valid", "fresh"), "expired": ("Expired", "plain"), "revoked": ("Revoked", "plain")}


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """Request for a new API key."""

    name: str
    scopes: list[KeyScope]
    lifetime: str  # a duration: "90d"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with its state, a name of `STATES`."""

    key: ApiKey
    state: str
    own: bool  # whether the caller used it for this request


def key_rows(project: Project, own: str) -> list[KeyRow]:
    """Return all keys: the valid ones first, each kind from the newest on."""
    now = project.authenticator.clock.now()  # it decides when a key has expired
    rows = [KeyRow(key, _state(key, now), key.id == own) for key in project.key_store.all()]
    order = list(STATES)
    return sorted(rows, key=lambda row: (order.index(row.state), -row.key.created_at, row.key.id))


def _state(key: ApiKey, now: int) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at <= now else "valid"


def add_key_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/keys`."""

    def show(
        request: Request, *, made: str = "", refused: MainspringError | None = None, status: int = 200
    ) -> Response:
        rows = key_rows(project, caller(request).principal.id)
        content = {"rows": rows, "states": STATES, "scopes": list(KeyScope), "made": made, "refused": refused}
        return page("keys.html", {**frame(request), "section": "access", **content}, status=status)

    @router.get("/keys")
    def show_keys(request: Request) -> Response:
        return show(request)

    @router.post("/keys")
    async def make_key(request: Request) -> Response:
        """The new key is in the answer alone: it is stored nowhere, and a reload of the page cannot repeat it."""
        fields = form(await request.body())
        scopes = [scope for scope in KeyScope if fields.get(f"scope.{scope}") == "yes"]
        try:
            wanted = NewKey(fields.get("name", ""), scopes, fields.get("lifetime", ""))
            token = await run_in_threadpool(create, project, wanted, caller(request).principal)
        except (Invalid, Conflict) as error:
            return await run_in_threadpool(lambda refused: show(request, refused=refused, status=400), error)
        return await run_in_threadpool(lambda: show(request, made=token, status=201))

    @router.post("/keys/{key_id}/revoke")
    async def revoke_key(request: Request, key_id: str) -> Response:
        await confirmed(request)
        await run_in_threadpool(revoke, project, check_id(key_id, "key"), caller(request).principal)
        return RedirectResponse("/keys", status_code=303)


def add_key_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/api/keys`."""

    @router.get("/keys")
    def list_keys() -> Answer:
        """API keys, revoked and expired ones included, without anything secret. Needs the scope manage."""
        return Answer({"keys": [_shown(key) for key in project.key_store.all()]})

    @router.post("/keys", status_code=201)
    @answers(id=str, token=str)
    async def create_key(request: Request, wanted: Annotated[NewKey, Depends(Body(NewKey))]) -> Json:
        """Make a key from `{"name", "scopes", "lifetime"}`. The answer's token cannot be shown again."""
        token = await run_in_threadpool(create, project, wanted, caller(request).principal)
        return Json({"id": _id_of(token), "token": token}, 201)

    @router.delete("/keys/{key_id}")
    def revoke_key(request: Request, key_id: Id) -> Json:
        """Revoke a key. It stops working within a second."""
        revoke(project, check_id(key_id, "key"), caller(request).principal)
        return Json({"id": key_id, "revoked": True})


def create(project: Project, wanted: NewKey, by: Principal) -> str:
    """Make a key on behalf of a caller, and return its token.

    Raises:
        Invalid: The name, the scopes or the lifetime is not valid.
    """
    with project.audit.together():
        # By the authenticator's clock, which also decides when the key has expired.
        token = issue(
            project.key_store,
            name=wanted.name,
            scopes=wanted.scopes,
            lifetime_us=parse_duration(wanted.lifetime),
            clock=project.authenticator.clock,
            pepper=project.pepper,
            created_by=person_of(project.key_store, by),
            owner=by.account,
        )
        _note(project, by, "key.create", f"key/{_id_of(token)}", ",".join(wanted.scopes))
    return token


def revoke(project: Project, key_id: str, by: Principal) -> None:
    """Revoke a key on behalf of a caller.

    Raises:
        NotFound: There is no such key.
    """
    with project.audit.together():
        project.key_store.revoke(key_id, project.authenticator.clock.now())
        _note(project, by, "key.revoke", f"key/{key_id}")


def _id_of(token: str) -> str:
    return token.split("_")[1]


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "created_by": key.created_by,
        "owner": key.owner,
    }


def _note(project: Project, who: Principal, action: str, resource: str, detail: str = "") -> None:
    project.audit.append([AuditEvent(project.wall.now(), f"{who.name} ({who.id})", action, resource, detail)])
