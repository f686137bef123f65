"""Schemas of Kubernetes' own objects, of several versions, and of those that others bring; and the rules of its Pod
Security Standards.

Built-in kinds are checked by kubernetes-validate, which has the schemas of the releases; custom ones by
`custom_resources.json`, which says of each from which package it is. A custom resource's templates of pods are checked
as pods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
from kubernetes_validate.utils import schema_contents

VERSIONS = ("1.28.0", "1.33.0", "1.37.0")
_CUSTOM = Path(__file__).with_name("custom_resources.json")
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def check(made: dict[str, Any], version: str) -> None:
    """Raise `jsonschema_rs.ValidationError` if an object is not of its schema; a field that is not there is refused."""
    custom = _custom().get(made["kind"])
    if custom is None:
        _built_in(version, made["kind"], made["apiVersion"]).validate(made)
        return
    custom.validate(made)
    for spec in pods(made):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": made["metadata"], "spec": spec}
        _built_in(version, "Pod", "v1").validate(pod)


def pods(found: Any) -> Iterator[dict[str, Any]]:
    """Yield the specifications of pods within an object."""
    if isinstance(found, dict):
        if isinstance(found.get("template"), dict) and "containers" in found["template"].get("spec", {}):
            yield found["template"]["spec"]
        for each in found.values():
            yield from pods(each)
    elif isinstance(found, list):
        for each in found:
            yield from pods(each)


@cache
def _custom() -> dict[str, Any]:
    return {kind: jsonschema_rs.validator_for(each) for kind, each in json.loads(_CUSTOM.read_text()).items()}


@cache
def _built_in(version: str, kind: str, api_version: str) -> Any:
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    group, _, number = api_version.rpartition("/")
    name = f"{kind.lower()}-{group.split('.')[0]}-{number}" if group else f"{kind.lower()}-{number}"
    schema = schema_contents(f"{folder}/{name}.json", version)
    used = _used(schema, _definitions(version))
    del schema["$id"]
    text = json.dumps({**schema, "$defs": used}).replace("/api/_definitions.json#/$defs/", "#/$defs/")
    return jsonschema_rs.validator_for(json.loads(text))


@cache
def _definitions(version: str) -> dict[str, Any]:
    found: dict[str, Any] = schema_contents(
        f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version
    )
    return dict(found["$defs"])


def _used(schema: Any, all_of_them: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions that a schema refers to, and those that they refer to."""
    used: dict[str, Any] = {}
    todo = [schema]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            if "$ref" in each and (name := each["$ref"].rpartition("/")[2]) not in used:
                used[name] = all_of_them[name]
                todo.append(all_of_them[name])
            todo += each.values()
        elif isinstance(each, list):
            todo += each
    return used


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what of a pod the level `restricted` forbids.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {each}" for each in pod.get("volumes", []) if not _VOLUMES & each.keys()]
    of_pod = pod.get("securityContext", {})
    for each in [*pod.get("initContainers", []), *pod["containers"]]:
        name, own = each["name"], each.get("securityContext", {})
        found += [f"{name}: hostPort" for port in each.get("ports", []) if "hostPort" in port]
        if own.get("privileged"):
            found.append(f"{name}: privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: allowPrivilegeEscalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append(f"{name}: capabilities")
        if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True or own.get("runAsUser", 1) == 0:
            found.append(f"{name}: may be root")
        profile = own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            found.append(f"{name}: seccomp {profile}")
    return found
