"""The monitoring of a project with an objective, as targets are given it."""

from __future__ import annotations

import json
from functools import partial

import mainspring as ms
from mainspring.core.settings import Address
from mainspring.deploy.adapters.targets.watching import Watching
from mainspring.monitoring.service.dashboards import dashboard
from mainspring.monitoring.service.prometheus_rules import rules, yaml
from mainspring.monitoring.service.prometheus_scrape import scrape_config


def watching(hosts: tuple[str, ...] = (), gateway: Address | None = None) -> Watching:
    monitor = ms.Monitor("late", objectives=[ms.objectives.availability(0.999)])
    return Watching(
        gateway or Address("127.0.0.1", 8080),
        Address("127.0.0.1", 8081),
        hosts,
        lambda: yaml(rules([monitor])),
        lambda: json.dumps(dashboard()),
        partial(scrape_config, tenant=""),
    )
