"""Objects of Kubernetes' API with server-side apply, for clients that make, change and remove them.

It answers as the API does where the client depends on it: fields have owners
(https://kubernetes.io/docs/reference/using-api/server-side-apply/), another owner's change takes a field over, lists of
objects merge by their keys, defaults are added and quantities get their canonical form, a deleted object stays while it
has finalizers. No controller runs: pods of a Deployment are ready when it is looked at for the second time.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

Object = dict[str, Any]
Path = tuple[tuple[str, str], ...]
_KEYS = (("containerPort", "protocol"), ("port", "protocol"), ("mountPath",), ("topologyKey",), ("name",), ("type",))
_OBJECTS = re.compile(r"(/apis?(?:/[a-z0-9.-]+)?/[a-z0-9]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?")
_VERSION = re.compile(r"(/apis?(?:/[a-z0-9.-]+)?/[a-z0-9]+)")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
APPLY = "application/apply-patch+yaml"


@dataclass
class Objects:
    """State of the API.

    Args:
        kinds: Names of kinds and their plurals by path of the API's version.
        denied: Verb and plural of which the account has no right.
        refused: What the admission says of a kind that it refuses; status by kind and text.
        slow: Number of looks for which a deleted object stays, as if it had a finalizer.
    """

    kinds: dict[str, dict[str, str]]
    namespaces: set[str] = field(default_factory=lambda: {"default"})
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    quotas: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    slow: int = 0
    there: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    owners: dict[str, dict[Path, set[str]]] = field(default_factory=dict)  # by uid
    looks: dict[str, int] = field(default_factory=dict)
    done: Callable[[str, str], None] = lambda verb, path: None

    def answer(self, verb: str, path: str, query: dict[str, str], content_type: str, body: Any) -> tuple[int, Any]:
        """Return the status and the content for a request."""
        if path == _REVIEWS and verb == "POST":
            asked = body["spec"]["resourceAttributes"]
            return 201, {"status": {"allowed": (asked["verb"], asked["resource"]) not in self.denied}}
        if path == "/api/v1/nodes":
            return self._listed(
                "nodes", [{"status": {"allocatable": each}} | _meta(name) for name, each in self.nodes.items()]
            )
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:
            name = path.rpartition("/")[2]
            return (200, _meta(name)) if name in self.namespaces else _status(404, f'namespaces "{name}" not found')
        if found := _OBJECTS.fullmatch(path):
            return self._asked(verb, found, query, content_type, body)
        if _VERSION.fullmatch(path) and path in self.kinds:
            return 200, {"resources": [{"kind": kind, "name": plural} for kind, plural in self.kinds[path].items()]}
        return _status(404, "the server could not find the requested resource")

    def _listed(self, plural: str, items: list[Object]) -> tuple[int, Any]:
        return _status(403, f"cannot list {plural}") if ("list", plural) in self.denied else (200, {"items": items})

    def _asked(
        self, verb: str, found: re.Match[str], query: dict[str, str], content_type: str, body: Any
    ) -> tuple[int, Any]:
        version, space, plural, name = found.groups()
        if name is None and plural == "pods":
            return self._listed("pods", self.pods)
        if name is None and plural == "resourcequotas":
            return self._listed(plural, [{"status": each} | _meta(name) for name, each in self.quotas.items()])
        if plural == "secrets":
            if ("get", plural) in self.denied:
                return _status(403, "cannot get secrets")
            return (200, _meta(name)) if name in self.secrets else _status(404, f'secrets "{name}" not found')
        if plural not in self.kinds.get(version, {}).values():
            return _status(404, "the server could not find the requested resource")
        act = {"GET": "get", "DELETE": "delete", "PATCH": "patch"}[verb]
        if (act, plural) in self.denied:
            return _status(403, f'{plural} "{name}" is forbidden: cannot {act} resource')
        key = (space, plural, name)
        if verb == "PATCH":
            return self._apply(key, query, content_type, body)
        return self._removed(key, body) if verb == "DELETE" else self._looked(key)

    def _apply(
        self, key: tuple[str, str, str], query: dict[str, str], content_type: str, body: Object
    ) -> tuple[int, Any]:
        space, _, name = key
        if content_type != APPLY:
            return _status(415, f"the body of the request was in an unknown format: {content_type}")
        if not (manager := query.get("fieldManager")):
            return _status(400, "fieldManager is required for apply patch")
        if space not in self.namespaces:
            return _status(404, f'namespaces "{space}" not found')
        if body["metadata"]["name"] != name or not _NAME.fullmatch(name):
            return _status(422, f"metadata.name: Invalid value: {body['metadata']['name']!r}")
        if any(not _label(value) for value in body["metadata"].get("labels", {}).values()):
            return _status(422, "metadata.labels: Invalid value: must be no more than 63 bytes")
        if body["kind"] in self.refused:
            return _status(*self.refused[body["kind"]])
        before = self.there.get(key)
        if before is not None and "deletionTimestamp" in before["metadata"]:
            return _status(409, f"object is being deleted: {name}")
        uid = before["metadata"]["uid"] if before is not None else str(uuid4())
        owners = copy.deepcopy(self.owners.get(uid, {}))
        merged = self._merged(before, owners, body, manager, force=query.get("force") == "true")
        if isinstance(merged, str):
            return _status(409, f"Apply failed with 1 conflict: conflict with {merged}")
        after = _defaulted(_canonical(merged))
        after["metadata"] |= {"uid": uid, "generation": 1}
        if before is not None:
            changed = after.get("spec") != before.get("spec")
            after["metadata"]["generation"] = before["metadata"]["generation"] + changed
        if query.get("dryRun") != "All":
            self.there[key], self.owners[uid] = after, owners
            self.looks[uid] = 0
            self.done("PATCH", "/".join(key))
        return (200 if before is not None else 201), after

    def _merged(
        self, before: Object | None, owners: dict[Path, set[str]], body: Object, manager: str, *, force: bool
    ) -> Object | str:
        """Return the object with what a manager applies, or the other manager that owns a field of another value."""
        live = dict(_leaves(before)) if before is not None else {}
        wanted = dict(_leaves(body))
        for path, value in wanted.items():
            others = owners.get(path, set()) - {manager}
            if others and live.get(path) != value:
                if not force:
                    return sorted(others)[0]
                owners[path] = set()
        for path in [each for each, of in owners.items() if manager in of and each not in wanted]:
            owners[path].discard(manager)
            if not owners[path]:
                del owners[path]
                live.pop(path, None)
        for path, value in wanted.items():
            for inner in [each for each in live if each != path and each[: len(path)] == path]:
                del live[inner]
            live[path] = value
            owners.setdefault(path, set()).add(manager)
        return _built(live)

    def edit(self, kind_and_name: str, change: Callable[[Object], None], manager: str = "kubectl-edit") -> None:
        """Change an object as somebody else does, who then owns the fields that differ."""
        [key] = [each for each, made in self.there.items() if f"{made['kind']}/{each[2]}" == kind_and_name]
        before = self.there[key]
        after = copy.deepcopy(before)
        change(after)
        old, new = dict(_leaves(before)), dict(_leaves(after))
        owners = self.owners[before["metadata"]["uid"]]
        for path in old.keys() | new.keys():
            if old.get(path) != new.get(path):
                owners[path] = {manager}
        after["metadata"]["generation"] += after.get("spec") != before.get("spec")
        self.there[key] = after

    def _looked(self, key: tuple[str, str, str]) -> tuple[int, Any]:
        made = self.there.get(key)
        if made is None:
            return _status(404, f'{key[1]} "{key[2]}" not found')
        uid = made["metadata"]["uid"]
        self.looks[uid] = self.looks.get(uid, 0) + 1
        if "deletionTimestamp" in made["metadata"] and self.looks[uid] > self.slow:
            del self.there[key]
            return _status(404, f'{key[1]} "{key[2]}" not found')
        return 200, {**made, "status": {**_by_itself(made, self.looks[uid]), **made.get("status", {})}}

    def _removed(self, key: tuple[str, str, str], options: Any) -> tuple[int, Any]:
        made = self.there.get(key)
        if made is None:
            return _status(404, f'{key[1]} "{key[2]}" not found')
        uid = made["metadata"]["uid"]
        if options.get("preconditions", {}).get("uid", uid) != uid:
            return _status(409, "the UID in the precondition does not match the UID in record")
        assert options["propagationPolicy"] == "Foreground"
        if self.slow and "deletionTimestamp" not in made["metadata"]:
            made["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
            self.looks[uid] = 0
        elif not self.slow:
            del self.there[key]
        self.done("DELETE", "/".join(key))
        return 200, made


def _meta(name: str) -> Object:
    return {"metadata": {"name": name}}


def _status(code: int, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}


def _label(value: str) -> bool:
    return len(value) <= 63 and re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", value) is not None


def _key(items: list[Any]) -> tuple[str, ...] | None:
    """Return the fields by which the members of a list are told apart; `None` if the list is one value."""
    if not items or not all(isinstance(each, dict) for each in items):
        return None
    return next((key for key in _KEYS if all(set(key) <= each.keys() for each in items)), None)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            if path or name != "status":
                yield from _leaves(each, (*path, ("f", name)))
    elif isinstance(value, list) and (key := _key(value)):
        for each in value:
            yield from _leaves(each, (*path, ("k", json.dumps({name: each[name] for name in key}))))
    else:
        yield path, value


def _built(leaves: dict[Path, Any]) -> Object:
    root: Object = {}
    for path, value in leaves.items():
        _place(root, path, value)
    return _listed(root)


def _place(node: Object, path: Path, value: Any) -> None:
    for step in path[:-1]:
        node = node.setdefault(step, {})
    node[path[-1]] = copy.deepcopy(value)


def _listed(node: Any) -> Any:
    """Turn a tree of steps into an object, with lists where the steps are members."""
    if not isinstance(node, dict) or not node or not all(isinstance(each, tuple) for each in node):
        return node
    if all(step[0] == "k" for step in node):
        return [_listed(each) for each in node.values()]
    return {step[1]: _listed(each) for step, each in node.items()}


def _canonical(value: Any, inside: bool = False) -> Any:
    """Write quantities of processors and memory as the API does."""
    if isinstance(value, dict):
        return {name: _canonical(each, inside or name in ("requests", "limits")) for name, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if inside and isinstance(value, str):
        if (found := re.fullmatch(r"(\d+)m", value)) and int(found[1]) % 1000 == 0:
            return str(int(found[1]) // 1000)
        units = ["Ki", "Mi", "Gi", "Ti"]
        while (found := re.fullmatch(r"(\d+)(Ki|Mi|Gi)", value)) and int(found[1]) % 1024 == 0:
            value = f"{int(found[1]) // 1024}{units[units.index(found[2]) + 1]}"
    return value


def _defaulted(made: Object) -> Object:
    if made["kind"] == "Deployment":
        made["spec"].setdefault("replicas", 1)
        pod = made["spec"]["template"]["spec"]
        pod.setdefault("restartPolicy", "Always")
        for each in pod["containers"]:
            each.setdefault("imagePullPolicy", "IfNotPresent")
            for name in ("livenessProbe", "readinessProbe", "startupProbe"):
                if name in each:
                    each[name].setdefault("successThreshold", 1)
                    each[name]["httpGet"].setdefault("scheme", "HTTP")
    if made["kind"] == "Service":
        made["spec"].setdefault("clusterIP", "10.96.0.7")
    if made["kind"] == "NetworkPolicy":
        for name in ("ingress", "egress"):
            if not made["spec"].get(name, True):
                del made["spec"][name]
    return made


def _by_itself(made: Object, looks: int) -> Object:
    """Return the status that controllers write."""
    kind, generation = made["kind"], made["metadata"]["generation"]
    if kind == "Deployment":
        pods = made["spec"]["replicas"]
        ready = pods if looks > 1 else 0
        return {"observedGeneration": generation, "replicas": pods, "updatedReplicas": pods, "availableReplicas": ready}
    if kind == "HTTPRoute":
        return {"parents": [{"conditions": [{"type": "Accepted", "status": "True"}]}]}
    if kind == "RayCluster":
        return {"state": "ready" if looks > 1 else ""}
    if kind == "RayJob":
        return {"jobDeploymentStatus": "Complete" if looks > 1 else "Running"}
    return {"conditions": [{"type": "Ready", "status": "True" if looks > 1 else "Unknown"}]}


BUILT_IN: dict[str, dict[str, str]] = {
    "/api/v1": {"ServiceAccount": "serviceaccounts", "Service": "services", "ConfigMap": "configmaps"},
    "/apis/apps/v1": {"Deployment": "deployments"},
    "/apis/policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "/apis/autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "/apis/networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "/apis/rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}
CUSTOM: dict[str, dict[str, str]] = {
    "/apis/gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "/apis/keda.sh/v1alpha1": {"ScaledObject": "scaledobjects"},
    "/apis/monitoring.coreos.com/v1": {
        "ServiceMonitor": "servicemonitors",
        "PodMonitor": "podmonitors",
        "PrometheusRule": "prometheusrules",
    },
    "/apis/external-secrets.io/v1": {"ExternalSecret": "externalsecrets"},
    "/apis/serving.kserve.io/v1alpha1": {"ServingRuntime": "servingruntimes"},
    "/apis/serving.kserve.io/v1beta1": {"InferenceService": "inferenceservices"},
    "/apis/ray.io/v1": {"RayCluster": "rayclusters", "RayJob": "rayjobs"},
}


def usual() -> Objects:
    """Return a cluster with all kinds, one node, and the Secrets of `deploy.targets.conformance.deployment`."""
    return Objects(
        {**BUILT_IN, **CUSTOM},
        nodes={"node-1": {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "2"}},
        secrets={"shop-east-environment", "shop-east-keys"},
    )
