"""A file of Compose: the gateway of an image on one machine, under Docker or podman.

The health check is the image's own: podman-compose would run one of the file by a shell, which the image has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.adapters.targets.image import image_name
from mainspring.deploy.images.debian import STATE, USER
from mainspring.deploy.targets.model import Deployment, Piece

COMPOSE = "compose.yaml"
PEPPER = "mainspring-pepper"
_STOP_S = 30


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `compose`.

    Attributes:
        folder: Where the file is written, relative to the project.
        listen: Address of the machine at which the gateway is published.
        pepper: File with the pepper of API keys, relative to the compose file; its owner is the container's user.
    """

    folder: str = "deploy/compose"
    listen: str = "127.0.0.1"
    pepper: str = f"./{PEPPER}"

    def __post_init__(self) -> None:
        for name in ("listen", "pepper"):
            value = getattr(self, name)
            if not value or not value.isprintable() or set(value) & set(" \"'$"):
                raise ValueError(f"{name} is {value!r}: write it without blanks, quotes and $")


class ComposeTarget(Folder):
    def __init__(self, options: ComposeOptions, root: Path) -> None:
        super().__init__(root / options.folder)
        self._options = options

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        for name, value in deployment.env.items():
            if not value.isprintable():
                raise Invalid(f"The variable {name} has the value {value!r}.", fix="write one line.")
        text = msgspec.json.format(msgspec.json.encode(self._document(deployment)), indent=2).decode()
        return [file(COMPOSE, f"{text}\n")]  # JSON is YAML

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []

    def _document(self, deployment: Deployment) -> dict[str, Any]:
        return {
            "name": f"mainspring-{deployment.project}".lower(),
            "services": {"gateway": self._gateway(deployment)},
            "volumes": {"state": {}},
            "secrets": {PEPPER: {"file": self._options.pepper}},
        }

    def _gateway(self, deployment: Deployment) -> dict[str, Any]:
        most = deployment.replicas[1]
        found: dict[str, Any] = {
            "image": deployment.image or image_name(deployment),
            "user": f"{USER}:{USER}",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "restart": "unless-stopped",
            "stop_grace_period": f"{_STOP_S}s",
            "ports": [f"{self._options.listen}:{deployment.port}:{deployment.port}"],
            "environment": {name: value.replace("$", "$$") for name, value in sorted(deployment.env.items())},
            "secrets": [PEPPER],
            "volumes": [f"state:/{STATE}"],
            "tmpfs": ["/tmp:size=64m,mode=1777"],  # noqa: S108
            "ulimits": {"nofile": {"soft": 20000, "hard": 20000}},
            "deploy": {
                "resources": {
                    "limits": {
                        "cpus": f"{deployment.cpu * most:g}",
                        "memory": f"{deployment.memory * most // 1024}k",
                        "pids": 1024,
                    }
                }
            },
        }
        if deployment.secrets:
            found["env_file"] = [f"./{deployment.project}.env"]
        if deployment.gpus:
            device = {"driver": "nvidia", "count": deployment.gpus, "capabilities": ["gpu"]}
            found["deploy"]["resources"]["reservations"] = {"devices": [device]}
        return found
