"""Reasons for which a cluster could not take a deployment, found without changing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mainspring.core.errors import Denied
from mainspring.deploy.engines.kubernetes_api import Api
from mainspring.deploy.manifests.kinds import KINDS, Object
from mainspring.deploy.manifests.quantities import quantity, shown
from mainspring.deploy.targets.model import Needs

Wanted = Sequence[tuple[Object, Needs | None]]
_VERBS = ("get", "create", "patch", "delete")


def problems(api: Api, namespace: str, wanted: Wanted, refused: Callable[[Object], str]) -> list[str]:
    """Return the problems. Where the account may not look, as at nodes, nothing is known and nothing is reported.

    Args:
        refused: Returns why the API would refuse an object, empty if it would take it.

    Raises:
        Unavailable: The API does not answer.
    """
    if missing := _missing_namespace(api, namespace):
        return [missing]
    found_kinds = [*_missing_kinds(api, [made for made, _ in wanted])]
    rights = [] if found_kinds else [*_missing_rights(api, namespace, [made for made, _ in wanted])]
    found = [
        *found_kinds,
        *rights,
        *_missing_secrets(api, namespace, wanted),
        *_nodes(api, wanted),
        *_quotas(api, namespace, wanted),
    ]
    if found:
        return found
    return [why for made, _ in wanted if (why := refused(made))]


def _missing_namespace(api: Api, namespace: str) -> str:
    try:
        there = api.ask("GET", f"/api/v1/namespaces/{namespace}").status != 404
    except Denied:
        return ""
    return "" if there else f"The cluster has no namespace {namespace!r}. Fix: kubectl create namespace {namespace}"


def _missing_kinds(api: Api, objects: Sequence[Object]) -> Iterator[str]:
    for kind in dict.fromkeys(each["kind"] for each in objects):
        known = KINDS[kind]
        reply = api.ask("GET", known.api_path)
        names = [] if reply.status == 404 else [each["kind"] for each in reply.json().get("resources", [])]
        if kind not in names:
            fix = (
                f"install {known.comes_with}, or turn off the setting of the target that needs it"
                if known.comes_with
                else "use a newer cluster"
            )
            yield f"The cluster has no {kind} ({known.api_version}). Fix: {fix}."


def _missing_rights(api: Api, namespace: str, objects: Sequence[Object]) -> Iterator[str]:
    for kind in dict.fromkeys(each["kind"] for each in objects):
        known = KINDS[kind]
        missing = [verb for verb in _VERBS if not _may(api, namespace, verb, known.group, known.plural)]
        if missing:
            yield (
                f"The account may not {', '.join(missing)} {known.plural} in the namespace {namespace!r}. "
                f"Fix: give it a Role with these verbs."
            )


def _may(api: Api, namespace: str, verb: str, group: str, resource: str) -> bool:
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": resource}},
    }
    reply = api.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asked)
    return bool(reply.json().get("status", {}).get("allowed"))


def _pods(wanted: Wanted) -> Iterator[tuple[Object, Object, Needs]]:
    """Yield the objects that have pods, with the specification of these and how many there are."""
    runtimes = {made["metadata"]["name"]: made["spec"] for made, _ in wanted if made["kind"] == "ServingRuntime"}
    for made, needs in wanted:
        if needs is None:
            continue
        spec = made["spec"]
        if made["kind"] == "InferenceService":
            yield made, runtimes[spec["predictor"]["model"]["runtime"]], needs
        elif made["kind"] in ("RayCluster", "RayJob"):
            cluster = spec.get("rayClusterSpec", spec)
            yield made, cluster["headGroupSpec"]["template"]["spec"], Needs()
            for group in cluster["workerGroupSpecs"]:
                yield made, group["template"]["spec"], needs
        else:
            yield made, spec["template"]["spec"], needs


def _missing_secrets(api: Api, namespace: str, wanted: Wanted) -> Iterator[str]:
    """Yield Secrets that pods name and nobody has made. Their values are not read."""
    names = dict[str, list[str]]()
    for _, pod, _ in _pods(wanted):
        for volume in pod["volumes"]:
            if "secret" in volume:
                names.setdefault(volume["secret"]["secretName"], [])
        for variable in pod["containers"][0].get("env", []):
            if (of := variable.get("valueFrom", {}).get("secretKeyRef")) and of["key"] not in names.setdefault(
                of["name"], []
            ):
                names[of["name"]].append(of["key"])
    made = {each["spec"]["target"]["name"] for each, _ in wanted if each["kind"] == "ExternalSecret"}
    for name in [each for each in names if each not in made]:
        with suppress(Denied):
            path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
            reply = api.ask("GET", path, accept="application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
            if reply.status == 404:
                entries = f" with the entries {', '.join(names[name])}" if names[name] else ""
                source = "" if names[name] else " --from-file=.mainspring/keys"
                yield (
                    f"The namespace {namespace!r} has no Secret {name!r}{entries}. "
                    f"Fix: kubectl -n {namespace} create secret generic {name}{source}"
                )


def _amounts(pod: Object) -> Mapping[str, float]:
    """Return what a pod requests, and its limits."""
    found = defaultdict[str, float](float)
    for each in pod["containers"]:
        for name, value in each["resources"]["requests"].items():
            found[name] += quantity(value)
    return found


def _nodes(api: Api, wanted: Wanted) -> Iterator[str]:
    """Yield pods for which no node has room, also if it were empty, and GPUs of which there are too few."""
    try:
        nodes = api.ask("GET", "/api/v1/nodes").json().get("items", [])
    except Denied:
        return
    has = [
        {name: quantity(value) for name, value in node.get("status", {}).get("allocatable", {}).items()}
        for node in nodes
    ]
    for made, pod, needs in _pods(wanted):
        where = made["metadata"]["name"]
        for name, amount in _amounts(pod).items():
            amounts = [each.get(name, 0.0) for each in has]
            told = ", ".join(
                f"{node['metadata']['name']} {shown(name, each)}" for node, each in zip(nodes, amounts, strict=True)
            )
            if amount > max(amounts, default=0.0):
                yield (
                    f"A pod of {where} requests {shown(name, amount)} {name}, and no node has so much: "
                    f"{told or 'there are none'}. Fix: ask for less, or add a node."
                )
            elif "/" in name and amount * needs.count > sum(amounts):  # processors and memory of others come and go
                yield (
                    f"{needs.count} pods of {where} request {shown(name, amount * needs.count)} {name}, and the nodes "
                    f"have {told}. Fix: fewer replicas, or more nodes."
                )


def _quotas(api: Api, namespace: str, wanted: Wanted) -> Iterator[str]:
    """Yield quotas of the namespace that are too small for the least that is deployed and is not there yet."""
    try:
        quotas = api.ask("GET", f"/api/v1/namespaces/{namespace}/resourcequotas").json().get("items", [])
    except Denied:
        return
    total = defaultdict[str, float](float)
    for made, pod, needs in _pods(wanted):
        there = _there(api, namespace, made)
        total["pods"] += max(0, needs.count - there)
        for name, amount in _amounts(pod).items():
            asked = amount * max(0, needs.count - there)
            total[f"requests.{name}"] += asked
            if name in ("cpu", "memory"):
                total[name] += asked
    for quota in quotas:
        hard, used = quota.get("status", {}).get("hard", {}), quota.get("status", {}).get("used", {})
        of = f"The quota {quota['metadata']['name']!r} of the namespace {namespace!r}"
        for name, amount in total.items():
            left = quantity(hard.get(name, "0")) - quantity(used.get(name, "0"))
            if name in hard and amount > left:
                yield (
                    f"{of} has {shown(name, max(0.0, left))} {name} left of {hard[name]}, and {shown(name, amount)} "
                    "are needed. Fix: raise the quota, or deploy less."
                )


def _there(api: Api, namespace: str, made: Object) -> int:
    reply = api.ask("GET", KINDS[made["kind"]].path(namespace, made["metadata"]["name"]))
    found: Any = {} if reply.status == 404 else reply.json()
    return int(found.get("status", {}).get("replicas", 0))
