"""Pods that run parts of `mainspring up`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.deploy.manifests.kinds import Object
from mainspring.deploy.manifests.pods import GPU, NOT_PRIVILEGED, STATE, Pod
from mainspring.deploy.manifests.quantities import cores, mebibytes
from mainspring.deploy.manifests.serving.options import ClusterOptions, Placed

_KEYS = "/keys"
_GROUP = 10001  # which owns the volumes: the image's user is in it while it runs
# Keys in the state folder are their owner's alone, and further ones are written beside them: no mount can be it. A file
# that is there is newer: the worker adds to some, such as spent privacy budgets, in a volume that outlives its pods.
_COPY = ["python3", "-m", "mainspring.processes.given_keys", _KEYS, f"{STATE}/keys"]


def template(
    placed: Placed,
    component: str,
    parts: Sequence[str],
    *,
    env: Mapping[str, str],
    cpu: float,
    memory: int,
    grace_s: int,
    further: Mapping[str, Any],
    gpus: int = 0,
    claim: str = "",
    token: bool = False,
) -> Object:
    """Return the template of pods of one component.

    Args:
        parts: Of `mainspring up`.
        further: Fields of the container, such as its ports and probes.
        claim: PersistentVolumeClaim of the state folder.
        token: Whether the pod may ask the cluster's API.
    """
    deployment, options = placed.deployment, placed.options
    only = [text for part in parts for text in ("--only", part)]
    account = f"{placed.name}-{component}"
    around = {"serviceAccountName": account, "automountServiceAccountToken": token, **devices(options, gpus)}
    spec = Pod(
        container=component,
        image=deployment.image,
        command=["python3", "-m", "mainspring", "up", "--contained", *only, *where(placed)],
        folder=options.project_folder,
        env={**deployment.env, **env},
        memory=mebibytes(memory),
        cpu=cores(cpu),
        gpus=gpus,
        gpu_resource=options.gpu_resource,
        grace_s=grace_s,
        spread=placed.selector(component),
        variables=[*secrets(placed), own_address()],
        further=further,
        around=around,
    ).spec()
    add_keys(spec, placed)
    if claim:
        spec["volumes"][0] = {"name": "state", "persistentVolumeClaim": {"claimName": claim}}
    return {"metadata": {"labels": placed.labels(component)}, "spec": spec}


def where(placed: Placed) -> list[str]:
    """Return the options of a command that say where the project is in the image."""
    return ["--project", placed.options.project_folder, "--profile", placed.deployment.profile]


def secrets(placed: Placed) -> list[Object]:
    """Return the variables whose values a Secret has."""
    return [
        {"name": each, "valueFrom": {"secretKeyRef": {"name": placed.secret, "key": each}}}
        for each in placed.deployment.secrets
    ]


def own_address() -> Object:
    return {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def devices(options: ClusterOptions, gpus: int) -> Object:
    """Return the fields of a pod that bring it to the right nodes."""
    found: Object = {"nodeSelector": dict(options.node_selector)} if options.node_selector else {}
    if gpus:
        found["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return found


def probe(path: str, port: int | str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, **times}


def add_keys(spec: Object, placed: Placed) -> None:
    """Copy the installation's keys into the state folder before the container starts."""
    [container] = spec["containers"]
    spec["securityContext"]["fsGroup"] = _GROUP
    spec["volumes"].append({"name": "keys", "secret": {"secretName": placed.keys, "defaultMode": 0o440}})
    small = {"memory": "128Mi"}
    spec["initContainers"] = [
        {
            "name": "keys",
            "image": container["image"],
            "command": _COPY,
            "resources": {"requests": {"cpu": "100m", **small}, "limits": small},
            "securityContext": {**NOT_PRIVILEGED, "readOnlyRootFilesystem": True},
            "volumeMounts": [
                {"name": "keys", "mountPath": _KEYS, "readOnly": True},
                {"name": "state", "mountPath": STATE},
            ],
        }
    ]
