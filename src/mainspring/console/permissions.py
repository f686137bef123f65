"""Actions that the console's routes require: one table, and how a request's resource is found.

A test compares the table with the routes. A list requires `console.open` and shows what the caller may see (`seen`),
or, where its rows are many, the action on the resource that its query names, and without one on the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from mainspring.core.errors import Denied, Invalid, MainspringError
from mainspring.operations.incidents import find as find_incident
from mainspring.project import Project
from mainspring.security.model import EVERY_ROLE, PROJECT, Action, Principal
from mainspring.security.ports import visible

T = TypeVar("T")
_PIPELINE = {"approve": Action.PIPELINE_APPROVE}


@dataclass(frozen=True, slots=True)
class Needs:
    """The action and resource that a route requires.

    Attributes:
        action: The action.
        on: `project`; a kind and the parameter of its name, in the path `model/{model}` or in the query `model?model`;
            the kind may be one of `_OWNERS`.
        chosen: Other actions, by the path's last segment.
        unnamed: Action on the project where the query names nothing; by default the same.
        several: Whether the query may name several, on each of which the action is required.
    """

    action: Action
    on: str = PROJECT
    chosen: Mapping[str, Action] | None = None
    unnamed: Action | None = None
    several: bool = False


def _pair(get: str, needs: Needs) -> dict[tuple[str, str], Needs]:
    """Return what a page and the same below /api require."""
    return {("GET", get): needs, ("GET", f"/api{get}"): needs}


def _all(needs: Needs, *routes: str) -> dict[tuple[str, str], Needs]:
    return {(method, path): needs for method, _, path in (route.partition(" ") for route in routes)}


_LIST = Needs(Action.CONSOLE_OPEN)
_PROJECT = Needs(Action.PROJECT_READ)
_ENDPOINT = Needs(Action.ENDPOINT_READ, "endpoint/{endpoint}")
_NAMED_ENDPOINT = Needs(Action.ENDPOINT_READ, "endpoint/{name}")
_MODEL = Needs(Action.MODEL_READ, "model/{model}")
_VERSION = "/models/{model}/versions/{number}"
_OF_RUN = Needs(Action.RUN_READ, "run/{run_id}")
_OF_PREDICTION = Needs(Action.PREDICTION_READ, "prediction/{prediction_id}")

# (method, path) -> what it requires. Not here: the probes, the log-in, and what a host or device signs.
NEEDS: Mapping[tuple[str, str], Needs] = {
    **_all(
        _LIST,
        *("GET /endpoints", "GET /api/endpoints", "GET /models", "GET /api/models", "GET /features"),
        *("GET /api/features", "GET /data", "GET /api/data", "GET /pipelines", "GET /api/pipelines"),
        *("GET /events", "GET /static/{name}", "GET /api/whoami", "GET /api/openapi.json", "POST /logout"),
    ),
    **_all(Needs(Action.ENDPOINT_READ, "endpoint?endpoint", unnamed=Action.CONSOLE_OPEN), "GET /"),
    **_pair("/runs", Needs(Action.RUN_READ, "model?model")),
    **_all(Needs(Action.RUN_READ, "run?run", unnamed=Action.CONSOLE_OPEN, several=True), "GET /runs/compare"),
    **_pair("/predictions", Needs(Action.PREDICTION_READ, "endpoint?endpoint")),
    **_all(Needs(Action.PREDICTION_READ, "endpoint?endpoint"), "GET /predictions.csv"),
    **_pair("/incidents", Needs(Action.INCIDENT_READ, "endpoint?endpoint")),
    **_all(Needs(Action.ENDPOINT_READ), "GET /rollouts"),
    **_all(Needs(Action.ENDPOINT_READ, "endpoint?endpoint"), "GET /api/rollouts"),
    **_all(_PROJECT, "GET /api/status", "GET /api/lineage", "GET /find", "GET /api/find", "GET /data/commits"),
    **_all(_PROJECT, "GET /api/data/commits", "GET /data/commits/{commit}", "GET /api/data/commits/{commit}"),
    **_all(_PROJECT, "GET /api/data/commits/{commit}/difference"),
    **{
        ("GET", f"/endpoints/{{endpoint}}{tab}"): _ENDPOINT
        for tab in ("", "/performance", "/fairness", "/drift", "/latency", "/capacity", "/scaling", "/rollout")
    },
    **_all(Needs(Action.PREDICTION_READ, "endpoint/{endpoint}"), "GET /endpoints/{endpoint}/callers"),
    **_all(Needs(Action.PREDICTION_READ, "endpoint/{name}"), "GET /api/endpoints/{name}/callers"),
    **{
        ("GET", f"/api/endpoints/{{name}}/{part}"): _NAMED_ENDPOINT
        for part in ("windows", "quality", "fairness", "distribution", "objectives", "service", "baselines", "scaling")
    },
    **{
        key: _MODEL
        for path in (
            "/models/{model}",
            "/models/{model}/history",
            _VERSION,
            f"{_VERSION}/evaluation",
            f"{_VERSION}/card",
        )
        for key in _pair(path, _MODEL)
    },
    **_all(_MODEL, f"GET {_VERSION}/card.md", f"GET {_VERSION}/explanation", f"GET {_VERSION}/promote"),
    **_all(_MODEL, f"GET {_VERSION}/approve", "GET /models/{model}/rollback", "GET /api/models/{model}/versions"),
    **_all(Needs(Action.MODEL_PROMOTE, "model/{model}"), f"POST {_VERSION}/promote", f"POST /api{_VERSION}/promote"),
    **_all(Needs(Action.MODEL_APPROVE, "model/{model}"), f"POST {_VERSION}/approve", f"POST /api{_VERSION}/approve"),
    **_all(
        Needs(Action.MODEL_ROLLBACK, "model/{model}"),
        *("POST /models/{model}/rollback", "POST /api/models/{model}/rollback"),
    ),
    **_pair("/runs/{run_id}", _OF_RUN),
    **_pair("/runs/{run_id}/search", _OF_RUN),
    **_all(_OF_RUN, "GET /api/runs/{run_id}/history"),
    **_all(Needs(Action.RUN_WRITE, "run/{run_id}"), "POST /runs/{run_id}", "POST /api/runs/{run_id}"),
    **_all(Needs(Action.FEATURES_READ, "feature-view/{name}"), "GET /features/{name}"),
    **_all(
        Needs(Action.FEATURES_READ, "feature-view/{view}"),
        *("GET /api/features/{view}", "GET /api/features/{view}/distributions"),
    ),
    **_all(Needs(Action.FEATURES_ENTITY, "feature-view/{view}"), "GET /api/features/{view}/online"),
    **_all(Needs(Action.TABLE_READ, "table/{name}"), "GET /data/tables/{name}", "GET /data/{name}"),
    **_all(Needs(Action.TABLE_ROWS, "table/{name}"), "GET /data/tables/{name}/rows"),
    **_all(
        Needs(Action.TABLE_READ, "table/{source}"),
        *("GET /api/data/tables/{source}", "GET /api/data/tables/{source}/profile"),
    ),
    **_all(Needs(Action.TABLE_ROWS, "table/{source}"), "GET /api/data/tables/{source}/rows"),
    **_pair("/predictions/{prediction_id}", _OF_PREDICTION),
    **_pair("/predictions/{prediction_id}/answer", _OF_PREDICTION),
    **_all(_OF_PREDICTION, "GET /api/predictions/{prediction_id}/replay"),
    **_all(_OF_PREDICTION, "GET /api/predictions/{prediction_id}/explanation"),
    **_all(Needs(Action.INCIDENT_READ, "incident/{incident}"), "GET /incidents/{incident}"),
    **_all(Needs(Action.INCIDENT_READ, "incident/{incident_id}"), "GET /api/incidents/{incident_id}"),
    **_all(Needs(Action.INCIDENT_WRITE, "incident/{incident}"), "POST /incidents/{incident}/{action}"),
    **_all(Needs(Action.INCIDENT_WRITE, "incident/{incident_id}"), "POST /api/incidents/{incident_id}/{action}"),
    **_all(Needs(Action.ENDPOINT_READ, "rollout/{rollout}"), "GET /rollouts/{rollout}"),
    **_all(
        Needs(Action.ENDPOINT_READ, "rollout/{rollout_id}"),
        *("GET /api/rollouts/{rollout_id}", "GET /api/rollouts/{rollout_id}/looks"),
    ),
    **_all(Needs(Action.ENDPOINT_ROLLOUT, "rollout/{rollout}"), "POST /rollouts/{rollout}/{action}"),
    **_all(Needs(Action.ENDPOINT_ROLLOUT, "rollout/{rollout_id}"), "POST /api/rollouts/{rollout_id}/{action}"),
    **_all(
        Needs(Action.PIPELINE_READ, "pipeline/{name}"),
        *("GET /pipelines/{name}", "GET /api/pipelines/{name}", "GET /pipelines/{name}/runs/{run}"),
        *("GET /pipelines/{name}/runs/{run}/steps/{step}", "GET /api/pipelines/{name}/runs/{run_id}"),
        "GET /api/pipelines/{name}/runs/{run_id}/steps/{step}/log",
    ),
    **_all(
        Needs(Action.PIPELINE_RUN, "pipeline/{name}", _PIPELINE),
        *("POST /pipelines/{name}/runs", "POST /api/pipelines/{name}/runs"),
        *("POST /pipelines/{name}/runs/{run}/{action}", "POST /api/pipelines/{name}/runs/{run_id}/{action}"),
    ),
    **_all(Needs(Action.JOB_READ), "GET /jobs", "GET /api/jobs", "GET /jobs/{job_id}", "GET /api/jobs/{job_id}"),
    **_all(Needs(Action.STREAM_READ), "GET /streams", "GET /api/streams", "GET /streams/{name}"),
    **_all(Needs(Action.STREAM_READ), "GET /api/streams/{name}", "GET /api/streams/{name}/dead-letters"),
    **_all(_LIST, "GET /collections", "GET /api/collections"),
    **_pair("/collections/{name}", Needs(Action.TABLE_READ, "collection/{name}")),
    **_pair("/collections/{name}/search", Needs(Action.TABLE_ROWS, "collection/{name}")),
    **_pair("/answers", _LIST),
    **_pair("/answers/{name}", Needs(Action.PREDICTION_READ, "endpoint/{name}")),
    **_pair("/prompts", _PROJECT),
    **_pair("/prompts/{name}", _PROJECT),
    **_all(_PROJECT, "GET /api/prompts/{name}/difference"),
    **_pair("/language-models", _LIST),
    **_pair("/language-models/{model}", Needs(Action.ENDPOINT_READ, "endpoint/{model}")),
    **_all(_LIST, "GET /language-models.csv", "GET /api/language-model-usage", "GET /api/language-model-budgets"),
    **_pair("/held-calls", _LIST),
    **_all(
        Needs(Action.TOOL_APPROVE, "call/{call}"),
        *("POST /held-calls/{call}/{action}", "POST /api/held-calls/{call}/{action}"),
    ),
    **_all(Needs(Action.COST_READ), "GET /cost", "GET /cost.csv", "GET /api/cost"),
    **_all(_LIST, "GET /api/cost/own"),
    **_all(Needs(Action.FLEET_READ), "GET /fleet", "GET /fleet/{device_id}", "GET /api/edge/fleet"),
    **_all(Needs(Action.FLEET_READ), "GET /api/edge/devices", "GET /api/edge/devices/{device_id}"),
    **_all(Needs(Action.AUDIT_ANCHOR), "GET /api/audit/heads", "POST /api/audit/heads"),
    **_all(Needs(Action.AUDIT_READ), "GET /audit", "GET /audit.csv", "GET /api/audit"),
    **_all(Needs(Action.AUDIT_READ), "GET /evidence", "GET /api/evidence", "GET /evidence/{framework}/{form}"),
    **_all(Needs(Action.EVIDENCE_MEASURE), "POST /evidence", "POST /api/evidence"),
    **_all(Needs(Action.KEYS_READ), "GET /keys", "GET /api/keys"),
    **_all(Needs(Action.KEYS_MANAGE), "POST /keys", "POST /keys/{key_id}/revoke", "POST /api/keys"),
    **_all(Needs(Action.KEYS_MANAGE), "DELETE /api/keys/{key_id}"),
    **_all(Needs(Action.SESSIONS_READ), "GET /sessions", "GET /api/sessions"),
    **_all(Needs(Action.SESSIONS_END), "POST /sessions/{session_id}/end", "POST /api/sessions/{session_id}/end"),
    **_all(Needs(Action.METRICS_SCRAPE), "GET /metrics"),
    **_all(
        Needs(Action.ACCOUNTS_PROVISION),
        *("GET /scim/v2/ServiceProviderConfig", "GET /scim/v2/ResourceTypes"),
        *(f"{method} /scim/v2/{kind}" for kind in ("Users", "Groups") for method in ("GET", "POST")),
        *(f"{method} /scim/v2/Users/{{user_id}}" for method in ("GET", "PUT", "PATCH", "DELETE")),
        *(f"{method} /scim/v2/Groups/{{group_id}}" for method in ("GET", "PUT", "PATCH", "DELETE")),
    ),
}


def _of_run(project: Project, run_id: str) -> Sequence[str]:
    return [f"model/{project.run_search.get([run_id])[0].model}"]


def _of_prediction(project: Project, prediction_id: str) -> Sequence[str]:
    return [f"endpoint/{project.predictions.find(prediction_id).endpoint}"]


def _of_incident(project: Project, incident_id: str) -> Sequence[str]:
    return [f"endpoint/{name}" for name in find_incident(project, incident_id).endpoints] or [PROJECT]


def _of_rollout(project: Project, rollout_id: str) -> Sequence[str]:
    return [f"endpoint/{each.endpoint}" for each in project.rollouts.get([rollout_id]) if each] or [PROJECT]


def _of_collection(project: Project, name: str) -> Sequence[str]:
    return [f"table/{project.definitions.collection(name).source.name}"]


def _of_call(project: Project, call: str) -> Sequence[str]:
    found = project.held_calls.get(call)
    return [PROJECT] if found is None else [f"endpoint/{found.model}"]


# kind -> the resources, all of which the action is checked on
_OWNERS: Mapping[str, Callable[[Project, str], Sequence[str]]] = {
    "run": _of_run,
    "prediction": _of_prediction,
    "incident": _of_incident,
    "rollout": _of_rollout,
    "collection": _of_collection,
    "call": _of_call,
}


class Permissions:
    """Authorisation of requests by `NEEDS`.

    Args:
        routes: The application's routes.
    """

    def __init__(self, project: Project, routes: Sequence[BaseRoute]) -> None:
        self._project = project
        self._routes = routes

    def check(self, principal: Principal, scope: Scope) -> None:
        """Raise if the caller may not make the request. A path of no route requires `console.open`.

        Raises:
            Invalid: The query names a resource twice: its route would take only one of the names.
            Denied: The action is not allowed. Of a run, prediction, incident or rollout it is the same whether it
                belongs to another resource or does not exist.
        """
        authoriser = self._project.authoriser
        needs, parameters = self._needs(scope)
        action = (needs.chosen or {}).get(scope["path"].rpartition("/")[2], needs.action)
        kind, in_path, name = needs.on.partition("/")
        if in_path:
            names = [str(parameters.get(name[1:-1], ""))]
        else:
            kind, _, name = needs.on.partition("?")
            names = [each.strip() for each in QueryParams(scope["query_string"]).getlist(name)]
            if len(names) > 1 and not needs.several:
                raise Invalid(f"The parameter {name!r} is given {len(names)} times.", fix="give it once.")
        if not any(names):
            authoriser.check(principal, needs.unnamed or action, PROJECT)
        for each in filter(None, names):
            self._check(principal, action, kind, each)

    def _check(self, principal: Principal, action: Action, kind: str, name: str) -> None:
        if kind not in _OWNERS:
            self._project.authoriser.check(principal, action, f"{kind}/{name}")
        elif not _allows(self._project, principal, action, kind, name):
            what = f"{principal.name!r} may not {action.value} on {kind} {name[:200]!r}."
            raise Denied(what, authenticated=True, fix=self._fix(principal, action))

    def _fix(self, principal: Principal, action: Action) -> str:
        """Return what to ask for, which says nothing about where something belongs."""
        try:
            self._project.authoriser.check(replace(principal, roles=EVERY_ROLE), action, PROJECT)
        except Denied as denied:  # also with every role: a scope is missing
            return denied.fix or ""
        return "ask an administrator for a role on the model or endpoint that it belongs to."

    def _needs(self, scope: Scope) -> tuple[Needs, Mapping[str, Any]]:
        for route in self._routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                method = "GET" if scope["method"] == "HEAD" else scope["method"]
                return NEEDS[method, getattr(route, "path", "")], child.get("path_params", {})
        return _LIST, {}


def caller_of(request: Request) -> Principal:
    """Return the principal of a request that passed the guard."""
    principal: Principal = request.scope["mainspring.caller"].principal
    return principal


def _allows(project: Project, principal: Principal, action: Action, kind: str, name: str) -> bool:
    """Return whether an action is allowed on every resource to which something of a kind of `_OWNERS` belongs."""
    authoriser = project.authoriser
    if authoriser.allows_everywhere(principal, action):
        return True
    try:
        resources = _OWNERS[kind](project, name)
    except MainspringError:
        resources = [PROJECT]
    return all(authoriser.allows(principal, action, resource) for resource in resources)


def may(request: Request, project: Project, action: Action, resource: str) -> bool:
    """Return whether a request's caller is allowed an action on a resource, which may be of a kind of `_OWNERS`."""
    kind, _, name = resource.partition("/")
    if kind in _OWNERS:
        return _allows(project, caller_of(request), action, kind, name)
    return project.authoriser.allows(caller_of(request), action, resource if name else PROJECT)


def seen_models(request: Request, project: Project) -> Callable[[Iterable[str]], list[str]]:
    """Return what leaves of some models' names those that a request's caller may see."""
    return lambda names: seen(request, project, Action.MODEL_READ, "model", names)


def seen_endpoints(request: Request, project: Project, names: Iterable[str]) -> list[str]:
    """Return those of some endpoints that a request's caller may see."""
    return seen(request, project, Action.ENDPOINT_READ, "endpoint", names)


def seen(
    request: Request, project: Project, action: Action, kind: str, items: Iterable[T], name: Callable[[T], str] = str
) -> list[T]:
    """Return the items of a list on which a request's caller is allowed an action; see `security.ports.visible`."""
    return visible(project.authoriser, caller_of(request), action, kind, items, name)
