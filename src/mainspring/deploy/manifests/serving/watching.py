"""Objects that the Prometheus operator and Grafana's sidecar read: who is scraped, rules, and the dashboard.

https://prometheus-operator.dev/docs/api-reference/api/ and, for the label by which the sidecar of Grafana's chart finds
dashboards, https://github.com/grafana/helm-charts/tree/main/charts/grafana#sidecar-for-dashboards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving.options import INSTANCE, Placed

_EVERY = "15s"
_DASHBOARD = {"grafana_dashboard": "1"}
_FIELD = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}


def scraped(placed: Placed, **where: Any) -> Object:
    """Return an endpoint of Mainspring's that is scraped with the target's key.

    Args:
        where: `port`, the name of one, or `portNumber`.
    """
    key = {"name": placed.options.scrape_key, "key": "key"}
    authorization = {"type": "Bearer", "credentials": key}
    return {**where, "path": "/metrics", "interval": _EVERY, "authorization": authorization}


def monitor(placed: Placed, kind: Literal["ServiceMonitor", "PodMonitor"], endpoints: Sequence[Object]) -> Object:
    """Return the object by which services or pods of the target are scraped."""
    spec = {"selector": {"matchLabels": {INSTANCE: placed.name}}, _FIELD[kind]: list(endpoints)}
    return made_of(kind, placed.name, placed.options.namespace, placed.labels(), spec=spec)


def rule(placed: Placed, groups: Sequence[Any]) -> Object:
    return made_of(
        "PrometheusRule", placed.name, placed.options.namespace, placed.labels(), spec={"groups": list(groups)}
    )


def dashboards(placed: Placed, text: str) -> list[Object]:
    """Return the ConfigMap of a dashboard; none of an empty text."""
    if not text:
        return []
    name, labels = f"{placed.name}-dashboard", {**placed.labels(), **_DASHBOARD}
    return [made_of("ConfigMap", name, placed.options.namespace, labels, data={f"{placed.name}.json": text})]
