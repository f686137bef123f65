"""States of objects in a cluster: whether what they stand for runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.core.errors import Denied
from mainspring.deploy.engines.kubernetes_api import Api
from mainspring.deploy.manifests.kinds import Object
from mainspring.deploy.targets.model import State

Found = tuple[State, str]
READY: Found = ("ready", "")
_HOPELESS = (
    "CreateContainerConfigError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CrashLoopBackOff",
)


def state_of(found: Object, api: Api, namespace: str) -> Found:
    """Return the state of an object and the reason for it. An object of which nothing has to start is ready."""
    if found["kind"] == "Deployment":
        return _deployment(found, api, namespace)
    look = _LOOKS.get(found["kind"])
    return READY if look is None else look(found)


def _deployment(found: Object, api: Api, namespace: str) -> Found:
    status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
    for type, value in (("ReplicaFailure", "True"), ("Progressing", "False")):
        if (each := _condition(found, type)) and each["status"] == value:
            return "failed", _text(each)
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return "starting", "the cluster has not taken it up yet"
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated >= wanted and available >= wanted and status.get("replicas", 0) <= max(updated, wanted):
        return READY
    if hopeless := _hopeless(found, api, namespace):
        return "failed", hopeless
    return "starting", f"{min(updated, available)} of {wanted} pods are ready"


def _hopeless(found: Object, api: Api, namespace: str) -> str:
    """Return why a pod waits for what will not come by itself."""
    chosen = ",".join(f"{name}={value}" for name, value in found["spec"]["selector"]["matchLabels"].items())
    try:
        reply = api.ask("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=chosen)
    except Denied:  # then the conditions alone tell
        return ""
    for pod in reply.json().get("items", []):
        status = pod.get("status", {})
        for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = each.get("state", {}).get("waiting", {})
            if waiting.get("reason") in _HOPELESS:
                return f"pod {pod['metadata']['name']}: {waiting['reason']}: {waiting.get('message', '')}"
    return ""


def _condition(found: Object, type: str) -> Mapping[str, Any] | None:
    conditions = found.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == type), None)


def _text(condition: Mapping[str, Any]) -> str:
    return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")


def _by_ready(found: Object) -> Found:
    """Return the state of an object whose controller writes the condition `Ready`."""
    ready = _condition(found, "Ready")
    if ready is None:
        return "starting", "its controller has not looked at it yet"
    if ready["status"] == "True":
        return READY
    return ("starting" if ready["status"] == "Unknown" else "failed"), _text(ready)


def _service(found: Object) -> Found:
    """Return the state of an InferenceService: it is not ready while its pods start, which is no failure."""
    state, why = _by_ready(found)
    failed = found.get("status", {}).get("modelStatus", {}).get("lastFailureInfo")
    return ("starting" if state == "failed" and not failed else state), why


def _cluster(found: Object) -> Found:
    status = found.get("status", {})
    state = status.get("state", "")
    if state == "ready":
        return READY
    return ("failed" if state in ("failed", "unhealthy") else "starting"), status.get("reason", state)


def _job(found: Object) -> Found:
    status = found.get("status", {})
    state = status.get("jobDeploymentStatus", "")
    if state == "Complete":
        return READY
    return ("failed" if state == "Failed" else "starting"), status.get("message", state)


def _route(found: Object) -> Found:
    """Return the state of a route: a Gateway has to accept it."""
    parents = found.get("status", {}).get("parents") or []
    conditions = [each for parent in parents for each in parent.get("conditions") or []]
    if refused := [
        each for each in conditions if each["type"] in ("Accepted", "ResolvedRefs") and each["status"] == "False"
    ]:
        return "failed", _text(refused[0])
    accepted = any(each["type"] == "Accepted" and each["status"] == "True" for each in conditions)
    return READY if accepted else ("starting", "no Gateway has accepted it yet")


_LOOKS: Mapping[str, Callable[[Object], Found]] = {
    "HTTPRoute": _route,
    "ScaledObject": _by_ready,
    "ExternalSecret": _by_ready,
    "InferenceService": _service,
    "RayCluster": _cluster,
    "RayJob": _job,
}
