"""Units of systemd: a project on one machine, as a service that starts with it, and its backups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.adapters.targets.watching import GRAFANA, Watching, grafana_files, prometheus_files
from mainspring.deploy.targets.model import Deployment, Piece

_ADDRESS = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?")
_CALENDAR = re.compile(r"[A-Za-z0-9*:/,. -]{1,80}")


class SystemdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `systemd`.

    Attributes:
        folder: Where the units are written, relative to the project; then install them with `systemctl link`.
        project_folder: Folder of the project on the machine.
        command: Path of the program `mainspring` there.
        user: Account of the service.
        backups: When backups are made, as `OnCalendar=` has it; empty: never.
        keep_backups: Days that a backup is kept.
        monitoring: Whether a configuration of Prometheus with the project's rules, and what Grafana loads, are written.
        scrape_key: File with a key of the scope `scrape` on the machine, for Prometheus.
        prometheus: Address of Prometheus, for Grafana.
    """

    folder: str = "deploy/systemd"
    project_folder: str = "/srv/mainspring/project"
    command: str = "/srv/mainspring/venv/bin/mainspring"
    user: str = "mainspring"
    backups: str = "daily"
    keep_backups: int = 14
    monitoring: bool = False
    scrape_key: str = "/etc/prometheus/mainspring.key"
    prometheus: str = "http://127.0.0.1:9090"

    def __post_init__(self) -> None:
        for name in ("project_folder", "command", "scrape_key"):
            value = getattr(self, name)
            if not value.startswith("/") or not value.isprintable() or set(value) & set(" \"'%\\$;"):
                raise ValueError(f"{name} is {value!r}: write an absolute path without blanks, quotes, %, $, ; and \\")
        if not self.user.isascii() or not self.user.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"user is {self.user!r}: write the name of an account")
        if self.backups and not _CALENDAR.fullmatch(self.backups):
            raise ValueError(f'backups is {self.backups!r}: write a time of systemd, such as "daily" or "*-*-* 03:00"')
        if not _ADDRESS.fullmatch(self.prometheus):
            raise ValueError(f"prometheus is {self.prometheus!r}: write such as http://127.0.0.1:9090")
        if not 1 <= self.keep_backups <= 10_000:
            raise ValueError(f"keep_backups is {self.keep_backups}: write a number of days from 1 to 10,000")


class SystemdTarget(Folder):
    def __init__(self, options: SystemdOptions, root: Path, watching: Watching | None = None) -> None:
        """Make the target.

        Args:
            watching: The project's monitoring, needed with `monitoring`.
        """
        super().__init__(root / options.folder)
        self._options, self._watching = options, watching

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        name = f"mainspring-{deployment.project}"
        found = [file(f"{name}.service", _service(deployment, self._options))]
        if self._options.backups:
            filled = _filled(deployment, self._options)
            found.append(file(f"{name}-backup.service", _BACKUP.format(**filled)))
            found.append(file(f"{name}-backup.timer", _TIMER.format(**filled), after=[found[-1].id]))
        watched = self._options.monitoring and self._watching
        return [*found, *(self._watched(deployment, watched) if watched else ())]

    def _watched(self, deployment: Deployment, watching: Watching) -> Iterator[Piece]:
        options = self._options
        gateway = replace(watching.gateway, host="127.0.0.1", port=deployment.port)
        yield from prometheus_files(watching, gateway, watching.control, options.scrape_key)
        there = f"{options.project_folder}/{options.folder}/{GRAFANA}/dashboards"
        yield from grafana_files(watching, deployment.project, options.prometheus, there)

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []


def _service(deployment: Deployment, options: SystemdOptions) -> str:
    return _UNIT.format(
        **_filled(deployment, options),
        memory=deployment.memory * deployment.replicas[1],
        cpu=round(100 * deployment.cpu * deployment.replicas[1]),
        devices=_GPUS if deployment.gpus else "PrivateDevices=yes\nDevicePolicy=closed",
    )


def _filled(deployment: Deployment, options: SystemdOptions) -> dict[str, str]:
    env = {
        **deployment.env,
        "MAINSPRING_GATEWAY": f"127.0.0.1:{deployment.port}",
        "MAINSPRING_GATEWAY_WORKERS": str(deployment.replicas[1]),
    }
    lines = [f'Environment="{name}={_quoted(name, value)}"' for name, value in sorted(env.items())]
    if deployment.secrets:
        lines.append(f"EnvironmentFile=/etc/mainspring/{deployment.project}.env")
    return {
        "project": deployment.project,
        "profile": deployment.profile,
        "folder": options.project_folder,
        "command": options.command,
        "user": options.user,
        "backups": options.backups,
        "days": str(options.keep_backups),
        "environment": "\n".join(lines),
        "sandbox": _SANDBOX,
    }


def _quoted(name: str, value: str) -> str:
    if not value.isprintable():
        raise Invalid(f"The variable {name} has the value {value!r}, which a unit cannot have.", fix="write one line.")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


# Left out, since it would take what is used: ProcSubset=pid (/proc/meminfo), IPAddressDeny= and PrivateNetwork=
# (callers), ~@privileged (capset, by which processes of models give rights up), ~@resources (priorities of shadows),
# MemoryDenyWriteExecute= (Polars and PyTorch write code that they run; ONNX Runtime does not).
_SANDBOX = """\
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateIPC=yes
PrivateMounts=yes
PrivateTmp=yes
PrivateUsers=yes
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service @sandbox"""

_GPUS = "DevicePolicy=closed\nDeviceAllow=char-nvidia rw\nDeviceAllow=char-nvidia-uvm rw\nDeviceAllow=char-drm rw"

_UNIT = """\
[Unit]
Description=Mainspring: {project}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command} up --project {folder} --profile {profile}
User={user}
WorkingDirectory={folder}
{environment}
Restart=always
RestartSec=1
TimeoutStartSec=infinity
TimeoutStopSec=60
WatchdogSec=30
KillMode=mixed
OOMPolicy=continue
MemoryMax={memory}
CPUQuota={cpu}%
TasksMax=4096
ReadWritePaths={folder}/.mainspring
{devices}
{sandbox}

[Install]
WantedBy=multi-user.target
"""

_BACKUP = """\
[Unit]
Description=Backup of Mainspring: {project}

[Service]
Type=oneshot
ExecStart={command} backup make --project {folder} --profile {profile} --to ${{STATE_DIRECTORY}} --keep {days}d
User={user}
WorkingDirectory={folder}
StateDirectory=mainspring-backups/{project}
StateDirectoryMode=0700
{environment}
Nice=10
IOSchedulingClass=idle
ReadWritePaths={folder}/.mainspring
PrivateDevices=yes
DevicePolicy=closed
{sandbox}
"""

_TIMER = """\
[Unit]
Description=Backups of Mainspring: {project}

[Timer]
OnCalendar={backups}
RandomizedDelaySec=10min
Persistent=yes

[Install]
WantedBy=timers.target
"""
