"""Pods of a project's work: without root, privileges, a token for the cluster's API, or a root file system to write to.

A container writes to three places, which end with its pod: the state folder, /tmp, and shared memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.variables import check_no_secret

NOT_PRIVILEGED: Mapping[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SECURE: Mapping[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
STATE = "/state"
GPU = "nvidia.com/gpu"
_INSTEAD = (
    "put it into a Secret (kubectl create secret generic NAME --from-literal={}=...), and name it as kubernetes_secret "
    "in the profile."
)
_QUANTITY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?(m|[EPTGMk]i?|Ki)?")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with one container.

    Args:
        container: Name of the container.
        env: Variables; none may be a secret.
        secret: Name of a Secret whose entries are variables too.
        memory: Quantity of Kubernetes that is requested, and the limit.
        cpu: Quantity that is requested; idle processors may be used beyond.
        gpus: Whole devices of `gpu_resource`.
        gpu_resource: Name under which nodes have them; a slice by MIG has one of its own.
        claims: Path at which a volume is mounted, by the name of its PersistentVolumeClaim.
        grace_s: Seconds from SIGTERM to SIGKILL.
        spread: Labels of the pods of which each node gets as few as possible.
        variables: Entries of the container's `env` whose values come from elsewhere. They are before `env`, which may
            use them as `$(NAME)`.
        further: Fields of the container in addition, such as probes.
        around: Fields of the pod in addition.

    Raises:
        Invalid: The image is missing, or a value cannot be what it is for.
    """

    container: str
    image: str
    command: Sequence[str]
    folder: str
    env: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    memory: str = "2Gi"
    cpu: str = "1"
    gpus: int = 0
    claims: Mapping[str, str] = field(default_factory=dict)
    grace_s: int = 60
    spread: Mapping[str, str] = field(default_factory=dict)
    gpu_resource: str = GPU
    variables: Sequence[Mapping[str, Any]] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.image:
            raise Invalid(
                "A pod needs an image with Mainspring and the project.",
                fix='give --image, or set kubernetes_image = "registry.example.org/project:tag".',
            )
        for name, quantity in (("memory", self.memory), ("cpu", self.cpu)):
            if not _QUANTITY.fullmatch(quantity):
                raise Invalid(f"{name} is {quantity!r}, which is no quantity.", fix="write 2Gi, or 500m of processors.")
        for claim, path in self.claims.items():
            if not path.startswith("/"):
                raise Invalid(
                    f"The claim {claim} is mounted at {path!r}.", fix="name an absolute path: CLAIM:/mnt/data."
                )
        check_no_secret(self.env, _INSTEAD)

    def spec(self) -> dict[str, Any]:
        """Return the specification of the pod."""
        volumes, mounts = _volumes(self.claims)
        amounts = {"memory": self.memory, **({self.gpu_resource: str(self.gpus)} if self.gpus else {})}
        container: dict[str, Any] = {
            "name": self.container,
            "image": self.image,
            "command": list(self.command),
            "workingDir": self.folder,
            "env": [
                *map(dict, self.variables),
                *({"name": name, "value": value} for name, value in {**_usual(), **self.env}.items()),
            ],
            "resources": {"requests": {"cpu": self.cpu, **amounts}, "limits": amounts},
            "securityContext": {**NOT_PRIVILEGED, "readOnlyRootFilesystem": True},
            "volumeMounts": mounts,
            **self.further,
        }
        if self.secret:
            container["envFrom"] = [{"secretRef": {"name": self.secret}}]
        found: dict[str, Any] = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": self.grace_s,
            "securityContext": dict(SECURE),
            "containers": [container],
            "volumes": volumes,
            **self.around,
        }
        if self.spread:
            found["topologySpreadConstraints"] = [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": dict(self.spread)},
                }
            ]
        return found


def _usual() -> dict[str, str]:
    return {"HOME": STATE, "MAINSPRING_STATE": STATE, "PYTHONUNBUFFERED": "1"}


def _volumes(claims: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the volumes of a pod, and where they are mounted."""
    volumes: list[dict[str, Any]] = [
        {"name": "state", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # counts as memory of the container
    ]
    mounts = [
        {"name": "state", "mountPath": STATE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (of the container)
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    for number, (claim, path) in enumerate(claims.items()):
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": f"claim-{number}", "mountPath": path})
    return volumes, mounts
