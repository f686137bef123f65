"""Files by which a Prometheus and a Grafana beside a target watch it: the project's own rules and dashboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mainspring.core.settings import Address
from mainspring.deploy.adapters.targets.folder import file
from mainspring.deploy.targets.model import Piece

PROMETHEUS, GRAFANA = "monitoring/prometheus", "monitoring/grafana"  # folders
_RULES = "mainspring.rules.yml"
_EVERY = "15s"


@dataclass(frozen=True, slots=True)
class Watching:
    """A project's monitoring. Each part is rendered when it is asked for.

    Attributes:
        gateway, control: Addresses of both planes, as the target's profile has them.
        hosts: Names to which the profile lets both planes answer.
        rules: Returns the file of rules.
        dashboard: Returns the file of the dashboard.
        scrape: Returns the scrape configuration of the gateway and the console at addresses, with the file of a key.
    """

    gateway: Address
    control: Address
    hosts: tuple[str, ...]
    rules: Callable[[], str]
    dashboard: Callable[[], str]
    scrape: Callable[[Address, Address | None, str], str]


def prometheus_files(watching: Watching, gateway: Address, control: Address | None, key: str) -> Iterator[Piece]:
    """Yield a whole configuration of Prometheus with the project's rules.

    Args:
        key: File with a key of the scope `scrape`, where Prometheus runs.
    """
    every = f'global: {{"scrape_interval": "{_EVERY}", "evaluation_interval": "{_EVERY}"}}\n'
    config = f"{every}rule_files: [{json.dumps(_RULES)}]\n{watching.scrape(gateway, control, key)}"
    yield file(f"{PROMETHEUS}/{_RULES}", watching.rules())
    yield file(f"{PROMETHEUS}/prometheus.yml", config)


def grafana_files(watching: Watching, project: str, prometheus: str, dashboards: str) -> Iterator[Piece]:
    """Yield the project's dashboard, and what has Grafana load it and ask Prometheus.

    https://grafana.com/docs/grafana/latest/administration/provisioning/

    Args:
        prometheus: Address of Prometheus.
        dashboards: Folder of the dashboard, where Grafana runs.
    """
    source = {"name": "Mainspring", "uid": "mainspring", "type": "prometheus", "access": "proxy", "url": prometheus}
    provider = {"name": "Mainspring", "type": "file", "allowUiUpdates": False, "options": {"path": dashboards}}
    name = f"mainspring-{project}"
    yield file(f"{GRAFANA}/dashboards/{name}.json", watching.dashboard())
    for folder, document in (
        ("dashboards", {"apiVersion": 1, "providers": [provider]}),
        ("datasources", {"apiVersion": 1, "datasources": [{**source, "isDefault": True}]}),
    ):
        yield file(f"{GRAFANA}/provisioning/{folder}/{name}.yml", json.dumps(document, indent=2) + "\n")
