"""The Kubernetes Job of one attempt at a step."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.settings import Engines
from mainspring.deploy.engines.asking import ENTRY
from mainspring.deploy.manifests.pods import NOT_PRIVILEGED, SECURE

_NONE: Mapping[str, float] = {}
LABEL = "mainspring-job"  # of the Job and its pod: the Job's name
_PIECE = 100_000  # of an argument; Linux takes up to 128 KiB
_LARGEST = 1_000_000  # of all arguments; an object of Kubernetes may have 1.5 MB
_SPARE_S = 60  # after the time-out; the runner ends the Job before, unless it is dead
_KEPT_S = 3600  # a finished Job whose runner is dead


def job_name(id: str) -> str:
    """Return the Job's name: the same for all attempts at a job, so that there can be only one at a time."""
    return f"mainspring-{id.lower()}"


def quantities(resources: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """Return a container's requests and limits. Processors are requested and not limited: idle ones may be used."""
    found = {}
    if "cpu" in resources:
        found["cpu"] = f"{round(1000 * resources['cpu'])}m"
    if "memory" in resources:
        found["memory"] = f"{int(resources['memory']) >> 20}Mi"
    if "gpu" in resources:
        found["nvidia.com/gpu"] = str(int(resources["gpu"]))
    return {"requests": found, "limits": {name: each for name, each in found.items() if name != "cpu"}}


def manifest(
    engines: Engines, name: str, request: str, timeout_us: int | None, resources: Mapping[str, float] = _NONE
) -> dict[str, Any]:
    """Return a `batch/v1` Job that answers a request once.

    The pod runs as another user than root, without privileges and without a token for the cluster's API.

    Args:
        request: JSON, from `asking.asked`.
        timeout_us: Longest time of the attempt.
        resources: What the step asks for; the rest is as the settings say.

    Raises:
        Invalid: No image is set, or the request is too large.
    """
    if not engines.kubernetes_image:
        raise Invalid(
            "Steps with engine='kubernetes' need an image with Mainspring and the project.",
            fix='set kubernetes_image = "registry.example.org/project:tag".',
        )
    text = base64.b64encode(request.encode()).decode()
    if len(text) > _LARGEST:
        raise Invalid(
            f"The step's inputs are a request of {len(text):,} bytes, and a Kubernetes Job takes {_LARGEST:,}.",
            fix="store them in the lake or as artifacts, and pass their name.",
        )
    asked = quantities(resources)
    usual = {"cpu": engines.kubernetes_cpu, "memory": engines.kubernetes_memory}
    container: dict[str, Any] = {
        "name": "step",
        "image": engines.kubernetes_image,
        "command": ["python", "-m", ENTRY],
        "args": [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)],
        "workingDir": engines.kubernetes_folder,
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {
            "requests": {**usual, **asked["requests"]},
            "limits": {"memory": engines.kubernetes_memory, **asked["limits"]},
        },
        "securityContext": dict(NOT_PRIVILEGED),
    }
    if engines.kubernetes_secret:
        container["envFrom"] = [{"secretRef": {"name": engines.kubernetes_secret}}]
    labels = {"app.kubernetes.io/managed-by": "mainspring", LABEL: name}
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": _KEPT_S,
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": dict(SECURE),
                "containers": [container],
            },
        },
    }
    if timeout_us is not None:
        spec["activeDeadlineSeconds"] = -(-timeout_us // 1_000_000) + _SPARE_S
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": engines.kubernetes_namespace, "labels": labels},
        "spec": spec,
    }
