"""A file of Compose: a project's containers on one machine, under Docker or podman.

Health checks are the image's own: podman-compose would run one of the file by a shell, which the image has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.adapters.targets.image import PROBE, image_name, up
from mainspring.deploy.adapters.targets.watching import GRAFANA, PROMETHEUS, Watching, grafana_files, prometheus_files
from mainspring.deploy.images.debian import SHARED, STATE, USER
from mainspring.deploy.targets.model import Deployment, Piece

COMPOSE = "compose.yaml"
PEPPER = "mainspring-pepper"
CONTROL_PORT = 8081
_PLANES = {"gateway", "worker"}
_STOP_S, _STOP_WORKER_S = 30, 90
_REVOKED, _KEYS = "/run/mainspring/revoked", "/run/mainspring/keys"
_DIGEST = re.compile(r"[^\s@$\"']+@sha256:[0-9a-f]{64}")
_POSTGRES, _REDIS = "postgres", "redis"
_PROMETHEUS, _GRAFANA = "prometheus", "grafana"
_SCRAPE_KEY, _GRAFANA_PASSWORD = "scrape-key", "grafana-password"


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `compose`.

    Attributes:
        folder: Where the file is written, relative to the project.
        listen: Address of the machine at which the gateway and the console are published.
        contents: As of the kind `image`: `project` runs the worker and the console, too.
        pepper: File with the pepper of API keys, relative to the compose file; its owner is the container's user. With
            `contents = "gateway"`.
        keys: Folder with the installation's keys, relative to the compose file; likewise. With `contents = "project"`.
        revoked: Folder whose file `keys` has the ids of revoked keys, for a sealed image; empty: the place gives none.
        console_port: Port at which the console is published.
        worker_cpu, worker_memory_mib: Limits of the worker with the console.
        postgres, redis: Images, by digest, of servers that run beside; empty: there are none.
        prometheus, grafana: Likewise, with the project's rules and dashboard. Grafana alone is published.
        grafana_port: Port at which Grafana is published.
        keep_metrics: Days that Prometheus keeps metrics.
    """

    folder: str = "deploy/compose"
    listen: str = "127.0.0.1"
    contents: Literal["gateway", "project"] = "gateway"
    pepper: str = f"./{PEPPER}"
    keys: str = "./keys"
    revoked: str = ""
    console_port: int = CONTROL_PORT
    worker_cpu: float = 1.0
    worker_memory_mib: int = 2048
    postgres: str = ""
    redis: str = ""
    prometheus: str = ""
    grafana: str = ""
    grafana_port: int = 3000
    keep_metrics: int = 15

    def __post_init__(self) -> None:
        for name in ("listen", "pepper", "keys"):
            _check_plain(name, getattr(self, name), empty=False)
        _check_plain("revoked", self.revoked, empty=True)
        for name in (_POSTGRES, _REDIS, _PROMETHEUS, _GRAFANA):
            if getattr(self, name) and not _DIGEST.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}: name an image by digest, NAME@sha256:...")
        if self.worker_cpu <= 0 or self.worker_memory_mib < 256:
            raise ValueError("worker_cpu has to be above 0, and worker_memory_mib at least 256")
        for name in ("console_port", "grafana_port"):
            if not 1024 <= getattr(self, name) <= 65535:
                raise ValueError(f"{name} is {getattr(self, name)}: write a port from 1024")
        if self.grafana and not self.prometheus:
            raise ValueError("grafana is set without prometheus, which it asks: name an image of that, too")
        if not 1 <= self.keep_metrics <= 10_000:
            raise ValueError(f"keep_metrics is {self.keep_metrics}: write a number of days from 1 to 10,000")
        if self.contents == "project" and self.revoked:
            raise ValueError('revoked is for contents = "gateway": a project\'s image reads its catalog')


def _check_plain(name: str, value: str, *, empty: bool) -> None:
    if (not value and not empty) or not value.isprintable() or set(value) & set(" \"'$"):
        raise ValueError(f"{name} is {value!r}: write it without blanks, quotes and $")


class ComposeTarget(Folder):
    def __init__(self, options: ComposeOptions, root: Path, watching: Watching | None = None) -> None:
        """Make the target.

        Args:
            watching: The project's monitoring, needed with `prometheus`.
        """
        super().__init__(root / options.folder)
        self._options, self._watching = options, watching

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        for name, value in deployment.env.items():
            if not value.isprintable():
                raise Invalid(f"The variable {name} has the value {value!r}.", fix="write one line.")
        ports = [deployment.port, self._options.console_port]
        ports += [self._options.grafana_port] if self._options.grafana else []
        if twice := next((each for each in ports if ports.count(each) > 1), 0):
            raise Invalid(
                f"The gateway, the console and Grafana have the same port {twice}.",
                fix="set console_port, grafana_port or port.",
            )
        text = msgspec.json.format(msgspec.json.encode(self._document(deployment)), indent=2).decode()
        return [*self._watched(deployment), file(COMPOSE, f"{text}\n")]  # JSON is YAML

    def _watched(self, deployment: Deployment) -> Iterator[Piece]:
        options, watching = self._options, self._watching
        if watching is None:
            return
        if options.prometheus:
            gateway = replace(watching.gateway, host="gateway", port=deployment.port)
            control = replace(watching.control, host="worker", port=options.console_port)
            worker = options.contents == "project" and deployment.worker
            yield from prometheus_files(watching, gateway, control if worker else None, f"/run/secrets/{_SCRAPE_KEY}")
        if options.grafana:
            yield from grafana_files(watching, deployment.project, "http://prometheus:9090", "/etc/grafana/dashboards")

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []

    def _document(self, deployment: Deployment) -> dict[str, Any]:
        whole = self._options.contents == "project"
        services = {"gateway": self._gateway(deployment)}
        if whole and deployment.worker:
            services["worker"] = self._worker(deployment)
        services |= self._servers()
        if self._watching is not None and self._options.prometheus:  # which asks by the names of the containers
            hosts = ",".join(dict.fromkeys([*self._watching.hosts, *(each for each in services if each in _PLANES)]))
            for name in _PLANES & services.keys():
                services[name]["environment"]["MAINSPRING_ALLOWED_HOSTS"] = hosts
        if whole:
            volumes = [*services, "stores"]
            secrets: dict[str, Any] = {}
        else:
            volumes = ["state", *(name for name in services if name != "gateway")]
            secrets = {PEPPER: {"file": self._options.pepper}}
        if self._options.postgres:
            secrets["postgres-password"] = {"file": "./postgres-password"}
        for used, name in ((self._options.prometheus, _SCRAPE_KEY), (self._options.grafana, _GRAFANA_PASSWORD)):
            if used:
                secrets[name] = {"file": f"./{name}"}
        return {
            "name": f"mainspring-{deployment.project}".lower(),
            "services": services,
            "volumes": {each: {} for each in volumes},
            **({"secrets": secrets} if secrets else {}),
        }

    def _gateway(self, deployment: Deployment) -> dict[str, Any]:
        most = deployment.replicas[1]
        found = self._container(deployment, cpu=deployment.cpu * most, memory=deployment.memory * most)
        found["ports"] = [f"{self._options.listen}:{deployment.port}:{deployment.port}"]
        found["stop_grace_period"] = f"{_STOP_S}s"
        if self._options.contents == "project":
            self._belong(found, "gateway", up("gateway", "log"))
        else:
            found["secrets"] = [PEPPER]
            found["volumes"] = [f"state:/{STATE}"]
            if self._options.revoked:
                # A folder: a file that is replaced would stay the old one in the container.
                found["volumes"].append(f"{self._options.revoked}:{_REVOKED}:ro")
                found["environment"]["MAINSPRING_REVOKED_KEYS_FILE"] = f"{_REVOKED}/keys"
        if deployment.gpus:
            device = {"driver": "nvidia", "count": deployment.gpus, "capabilities": ["gpu"]}
            found["deploy"]["resources"]["reservations"] = {"devices": [device]}
        return found

    def _worker(self, deployment: Deployment) -> dict[str, Any]:
        """Return the worker and the console: one container, as they share files of runs and jobs."""
        options = self._options
        found = self._container(deployment, cpu=options.worker_cpu, memory=options.worker_memory_mib << 20)
        found["ports"] = [f"{options.listen}:{options.console_port}:{options.console_port}"]
        found["stop_grace_period"] = f"{_STOP_WORKER_S}s"
        self._belong(found, "worker", up("control", "worker"))
        found["environment"] |= {
            "MAINSPRING_CONTROL": f"0.0.0.0:{options.console_port}",
            PROBE: f"{options.console_port}/health/live",
        }
        return found

    def _belong(self, container: dict[str, Any], name: str, command: list[str]) -> None:
        """Let a container run a part of the project: with a state folder of its own, and stores that all share."""
        container["command"] = command
        container["volumes"] = [f"{name}:/{STATE}", f"stores:/{SHARED}", f"{self._options.keys}:{_KEYS}:ro"]
        container["environment"] |= {"MAINSPRING_KEYS_FOLDER": _KEYS}
        if servers := [each for each in (_POSTGRES, _REDIS) if getattr(self._options, each)]:
            container["depends_on"] = servers

    def _container(self, deployment: Deployment, *, cpu: float, memory: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "image": deployment.image or image_name(deployment),
            "user": f"{USER}:{USER}",
            **_hardened(cpu, memory, 1024),
            "environment": {name: value.replace("$", "$$") for name, value in sorted(deployment.env.items())},
        }
        if deployment.secrets:
            found["env_file"] = [f"./{deployment.project}.env"]
        return found

    def _servers(self) -> dict[str, Any]:
        """Return the servers that run beside, reachable from the project's containers alone."""
        found = dict[str, Any]()
        if self._options.postgres:
            found[_POSTGRES] = {
                "image": self._options.postgres,
                "user": "postgres",
                **_hardened(1.0, 512 << 20, 256),
                "stop_grace_period": "60s",
                "tmpfs": ["/tmp:size=64m,mode=1777", "/var/run/postgresql:size=1m,mode=1777"],  # noqa: S108
                "environment": {
                    "POSTGRES_USER": "mainspring",
                    "POSTGRES_DB": "mainspring",
                    "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres-password",
                },
                "secrets": ["postgres-password"],
                "volumes": ["postgres:/var/lib/postgresql/data"],
            }
        if self._options.redis:
            found[_REDIS] = {
                "image": self._options.redis,
                "user": "redis",
                **_hardened(1.0, 512 << 20, 64),
                "stop_grace_period": "30s",
                "command": ["redis-server", "--appendonly", "yes", "--maxmemory", "384mb"],
                "volumes": ["redis:/data"],
            }
        if self._options.prometheus:
            found[_PROMETHEUS] = {
                "image": self._options.prometheus,
                "user": "65534:65534",
                **_hardened(1.0, 1 << 30, 256),
                "stop_grace_period": "30s",
                "command": [
                    "--config.file=/etc/prometheus/prometheus.yml",
                    "--storage.tsdb.path=/prometheus",
                    f"--storage.tsdb.retention.time={self._options.keep_metrics}d",
                ],
                "secrets": [_SCRAPE_KEY],
                "volumes": ["prometheus:/prometheus", f"./{PROMETHEUS}:/etc/prometheus:ro"],
            }
        if self._options.grafana:
            found[_GRAFANA] = {
                "image": self._options.grafana,
                "user": "472:0",
                **_hardened(1.0, 512 << 20, 256),
                "ports": [f"{self._options.listen}:{self._options.grafana_port}:3000"],
                "environment": {
                    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
                    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
                    "GF_ANALYTICS_REPORTING_ENABLED": "false",
                    "GF_AUTH_ANONYMOUS_ENABLED": "false",
                    "GF_SECURITY_ADMIN_PASSWORD__FILE": f"/run/secrets/{_GRAFANA_PASSWORD}",
                    "GF_USERS_ALLOW_SIGN_UP": "false",
                },
                "secrets": [_GRAFANA_PASSWORD],
                "volumes": [
                    "grafana:/var/lib/grafana",
                    f"./{GRAFANA}/dashboards:/etc/grafana/dashboards:ro",
                    f"./{GRAFANA}/provisioning:/etc/grafana/provisioning:ro",
                ],
                "depends_on": [_PROMETHEUS],
            }
        return found


def _hardened(cpu: float, memory: int, pids: int) -> dict[str, Any]:
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "tmpfs": ["/tmp:size=64m,mode=1777"],  # noqa: S108
        "ulimits": {"nofile": {"soft": 20000, "hard": 20000}},
        "deploy": {"resources": {"limits": {"cpus": f"{cpu:g}", "memory": f"{memory // 1024}k", "pids": pids}}},
    }
