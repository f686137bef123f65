"""Units of systemd: a project on one machine, as a service that starts with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.targets.model import Deployment, Piece


class SystemdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `systemd`.

    Attributes:
        folder: Where the units are written, relative to the project; then install them with `systemctl link`.
        project_folder: Folder of the project on the machine.
        command: Path of the program `mainspring` there.
        user: Account of the service.
    """

    folder: str = "deploy/systemd"
    project_folder: str = "/srv/mainspring/project"
    command: str = "/srv/mainspring/venv/bin/mainspring"
    user: str = "mainspring"

    def __post_init__(self) -> None:
        for name in ("project_folder", "command"):
            value = getattr(self, name)
            if not value.startswith("/") or not value.isprintable() or set(value) & set(" \"'%\\"):
                raise ValueError(f"{name} is {value!r}: write an absolute path without blanks, quotes, % and \\")
        if not self.user.isascii() or not self.user.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"user is {self.user!r}: write the name of an account")


class SystemdTarget(Folder):
    def __init__(self, options: SystemdOptions, root: Path) -> None:
        super().__init__(root / options.folder)
        self._options = options

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        return [file(f"mainspring-{deployment.project}.service", _unit(deployment, self._options))]

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []


def _unit(deployment: Deployment, options: SystemdOptions) -> str:
    env = {
        **deployment.env,
        "MAINSPRING_GATEWAY": f"127.0.0.1:{deployment.port}",
        "MAINSPRING_GATEWAY_WORKERS": str(deployment.replicas[1]),
    }
    lines = [f'Environment="{name}={_quoted(name, value)}"' for name, value in sorted(env.items())]
    if deployment.secrets:
        lines.append(f"EnvironmentFile=/etc/mainspring/{deployment.project}.env")
    return _UNIT.format(
        project=deployment.project,
        profile=deployment.profile,
        folder=options.project_folder,
        command=options.command,
        user=options.user,
        environment="\n".join(lines),
        memory=deployment.memory * deployment.replicas[1],
        cpu=round(100 * deployment.cpu * deployment.replicas[1]),
    )


def _quoted(name: str, value: str) -> str:
    if not value.isprintable():
        raise Invalid(f"The variable {name} has the value {value!r}, which a unit cannot have.", fix="write one line.")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


_UNIT = """\
[Unit]
Description=Mainspring: {project}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command} up --project {folder} --profile {profile}
User={user}
StateDirectory=mainspring
{environment}
Restart=always
RestartSec=1
MemoryMax={memory}
CPUQuota={cpu}%
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}/.mainspring

[Install]
WantedBy=multi-user.target
"""
