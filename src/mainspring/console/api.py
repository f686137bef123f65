"""JSON API of the control plane. Instants are UTC epoch microseconds; malformed ids are rejected without a look-up."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Json
from mainspring.console.background_cache import Looking
from mainspring.console.data.explore_api import add_explore_api
from mainspring.console.endpoints.api import Id, Limit, add_endpoint_api
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.overview import endpoints
from mainspring.console.guard import caller
from mainspring.console.jobs.api import add_job_api
from mainspring.console.models.api import add_model_api
from mainspring.console.pipelines.api import add_pipeline_api
from mainspring.console.predictions.evidence import evidence
from mainspring.console.rollouts.api import add_rollout_api
from mainspring.console.runs.api import add_run_api
from mainspring.console.search.api import add_search_api
from mainspring.console.webhooks import add_webhook_api
from mainspring.core.errors import Invalid
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.core.time import parse_duration
from mainspring.ledger.model import Prediction
from mainspring.project import Project
from mainspring.security.keys import issue
from mainspring.security.model import Action, ApiKey, AuditEvent, Principal

MaybeId = Annotated[str | None, Query(pattern=f"^{ID_PATTERN}$")]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """Request for a new API key."""

    name: str
    scopes: list[Action]
    lifetime: str  # a duration: "90d"


def api(project: Project, looking: Looking | None = None) -> APIRouter:
    """Return the routes under /api.

    Args:
        looking: Cache of costly results, shared with the pages.
    """
    router = APIRouter(prefix="/api", default_response_class=Answer)
    looking = looking or Looking()

    @router.get("/status")
    def status() -> Response:
        """The project, and what is live behind each endpoint."""
        settings, table = project.settings, project.routes.current()
        return Answer(
            {
                "project": settings.project,
                "profile": settings.profile,
                "now": project.clock.now(),
                "wall": project.wall.now(),
                "revision": project.routes.revision(),
                "endpoints": [live(project, name, table.get(name)) for name in endpoints(project)],
            }
        )

    add_webhook_api(router, project)
    add_endpoint_api(router, project)

    @router.get("/predictions")
    def list_predictions(endpoint: MaybeId = None, limit: Limit = 50) -> Response:
        """The newest predictions, newest first."""
        return Answer({"predictions": [_logged(each) for each in project.predictions.recent(endpoint, limit)]})

    @router.get("/predictions/{prediction_id}")
    def show_prediction(prediction_id: Id) -> Response:
        """One prediction with its provenance and its label; for several labels, `labels` has each."""
        view = evidence(project, check_id(prediction_id, "prediction"))
        return Answer(
            {
                "prediction": _logged(view.prediction),
                "label": view.label,
                **({"labels": view.labels} if len(view.labels) > 1 else {}),
                "version": view.version,
                "manifest": view.manifest,
                "run": view.run,
                "dataset_commit": view.commit,
                "missing": view.missing,
            }
        )

    add_model_api(router, project, looking)
    add_run_api(router, project)
    add_search_api(router, project)
    add_job_api(router, project)
    add_rollout_api(router, project)
    add_pipeline_api(router, project)

    @router.get("/keys")
    def list_keys() -> Response:
        """API keys, revoked and expired ones included, without anything secret. Needs the scope manage."""
        return Answer({"keys": [_shown(key) for key in project.key_store.all()]})

    @router.post("/keys", status_code=201)
    async def create_key(request: Request) -> Response:
        """Make a key from `{"name", "scopes", "lifetime"}`. The answer's token cannot be shown again."""
        try:
            wanted = msgspec.json.decode(await request.body(), type=NewKey)
        except msgspec.MsgspecError as error:
            raise Invalid(
                f"The request for a key is not valid: {error}.", fix='send {"name", "scopes", "lifetime"}.'
            ) from None
        token = await run_in_threadpool(_create, project, wanted, caller(request).principal)
        await run_in_threadpool(_note, project, request, "key.create", f"key/{_id_of(token)}", ",".join(wanted.scopes))
        return Json({"id": _id_of(token), "token": token}, 201)

    @router.delete("/keys/{key_id}")
    def revoke_key(request: Request, key_id: Id) -> Response:
        """Revoke a key. It stops working within a second."""
        project.key_store.revoke(check_id(key_id, "key"), project.authenticator.clock.now())
        _note(project, request, "key.revoke", f"key/{key_id}")
        return Json({"id": key_id, "revoked": True})

    @router.get("/audit")
    def list_audit(limit: Limit = 100) -> Response:
        """Audit events, newest first."""
        return Answer({"events": project.audit.read(limit)})

    add_explore_api(router, project, looking)
    return router


def _create(project: Project, wanted: NewKey, by: Principal) -> str:
    # By the authenticator's clock, which also decides when the key has expired.
    return issue(
        project.key_store,
        name=wanted.name,
        scopes=wanted.scopes,
        lifetime_us=parse_duration(wanted.lifetime),
        clock=project.authenticator.clock,
        pepper=project.pepper,
        created_by=_person(project, by),
    )


def _person(project: Project, principal: Principal) -> str:
    """Return the person behind a key: a key made with another key belongs to the person who made the first."""
    key = project.key_store.find(principal.id)
    return "" if key is None else key.created_by


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
    }


def _note(project: Project, request: Request, action: str, resource: str, detail: str = "") -> None:
    who = caller(request).principal
    project.audit.append([AuditEvent(project.wall.now(), f"{who.name} ({who.id})", action, resource, detail)])


def _logged(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction for display. Of personal values it has only the names, and whether they can be revealed."""
    fields = {name: getattr(prediction, name) for name in prediction.__struct_fields__ if name != "sealed"}
    return {**fields, "withheld": prediction.withheld}
