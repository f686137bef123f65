"""JSON API of the control plane. Instants are UTC epoch microseconds; malformed ids are rejected without a look-up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from mainspring.console.access.audit import add_audit_api
from mainspring.console.access.evidence import add_evidence_api
from mainspring.console.access.keys import add_key_api
from mainspring.console.access.sessions import add_session_api
from mainspring.console.answers import Answer, answers
from mainspring.console.background_cache import Looking
from mainspring.console.chains.pages import add_chain_api
from mainspring.console.collections.pages import add_collection_api
from mainspring.console.cost.pages import add_cost_api
from mainspring.console.data.explore_api import add_explore_api
from mainspring.console.endpoints.api import add_endpoint_api
from mainspring.console.endpoints.live import Live, live
from mainspring.console.find import add_find_api
from mainspring.console.fleet.api import add_fleet_api
from mainspring.console.incidents.api import add_incident_api
from mainspring.console.jobs.api import add_job_api
from mainspring.console.language_models.held_calls import add_held_call_api
from mainspring.console.language_models.pages import add_language_model_api
from mainspring.console.models.api import add_model_api
from mainspring.console.permissions import caller_of
from mainspring.console.pipelines.api import add_pipeline_api
from mainspring.console.predictions.answer_trace import add_answer_api
from mainspring.console.predictions.pages import add_prediction_api
from mainspring.console.prompts.pages import add_prompt_api
from mainspring.console.rollouts.api import add_rollout_api
from mainspring.console.routing import router_of
from mainspring.console.runs.api import add_run_api
from mainspring.console.search.api import add_search_api
from mainspring.console.streams.pages import add_stream_api
from mainspring.console.webhooks import add_webhook_api
from mainspring.core.ids import ID_PATTERN
from mainspring.operations.endpoint_health import endpoints
from mainspring.project import Project

MaybeId = Annotated[str | None, Query(pattern=f"^{ID_PATTERN}$")]


def api(project: Project, looking: Looking | None = None) -> APIRouter:
    """Return the routes under /api.

    Args:
        looking: Cache of costly results, shared with the pages.
    """
    router = router_of(prefix="/api", default_response_class=Answer)
    looking = looking or Looking()

    @router.get("/status")
    @answers(project=str, profile=str, now=int, wall=int, revision=int, endpoints=list[Live])
    def status() -> Answer:
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

    @router.get("/whoami")
    @answers(kind=str, id=str, name=str, account=str, groups=list[str], roles=list[dict[str, str]])
    def whoami(request: Request) -> Answer:
        """The caller: kind, id, name, groups and roles."""
        principal = caller_of(request)
        return Answer(
            {
                "kind": principal.kind,
                "id": principal.id,
                "name": principal.name,
                "account": principal.account,
                "groups": sorted(principal.groups),
                "roles": [{"role": each.role, "resource": each.resource} for each in sorted(principal.roles)],
            }
        )

    add_webhook_api(router, project)
    add_endpoint_api(router, project)

    add_prediction_api(router, project, looking)
    add_answer_api(router, project)
    add_model_api(router, project, looking)
    add_run_api(router, project)
    add_search_api(router, project)
    add_job_api(router, project)
    add_rollout_api(router, project)
    add_pipeline_api(router, project)
    add_incident_api(router, project)
    add_fleet_api(router, project)
    add_stream_api(router, project)
    add_collection_api(router, project)
    add_chain_api(router, project)
    add_prompt_api(router, project)
    add_language_model_api(router, project)
    add_held_call_api(router, project)
    add_cost_api(router, project)

    add_find_api(router, project)
    add_key_api(router, project)
    add_session_api(router, project)
    add_audit_api(router, project)
    add_evidence_api(router, project)
    add_explore_api(router, project, looking)
    return router
