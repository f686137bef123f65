"""Dashboards for Grafana, rendered from a table of panels.

The JSON is that of an import (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mainspring.monitoring.service.prometheus_rules import of_tenant

_SCHEMA = 39  # of Grafana 11
_WIDE, _TALL, _COLUMNS = 8, 8, 24
_OF = '{endpoint=~"$endpoint"}'
_RATE = "$__rate_interval"


class Panel(NamedTuple):
    """A chart: its title, unit, and queries with their legends."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    about: str = ""
    kind: str = "timeseries"


def _quantile(share: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate(mainspring_inference_seconds_bucket{_OF}[{_RATE}])))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Objectives",
        (
            Panel(
                "Error budget left",
                "percentunit",
                ((f"mainspring_error_budget_left_ratio{_OF}", "{{endpoint}} {{objective}}"),),
                "Share of the error budget over the objective's time. At 0 the promise is broken.",
                "stat",
            ),
            Panel(
                "Burn rate",
                "short",
                (
                    (
                        'mainspring_burn_rate_ratio{endpoint=~"$endpoint", window=~"5m|1h|6h"}',
                        "{{objective}} {{window}}",
                    ),
                ),
                "1 uses up the budget exactly. Above 14.4 in one hour and in five minutes a person is paged.",
            ),
            Panel(
                "Open incidents",
                "short",
                ((f"mainspring_open_incidents{_OF}", "{{endpoint}} {{severity}}"),),
                kind="stat",
            ),
        ),
    ),
    (
        "Service",
        (
            Panel(
                "Requests",
                "reqps",
                ((f"sum by (status) (rate(mainspring_requests_total{_OF}[{_RATE}]))", "{{status}}"),),
                "By HTTP status.",
            ),
            Panel(
                "Latency",
                "s",
                tuple((_quantile(share), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
                "From arrival to reply, of answered requests.",
            ),
            Panel("Latency by version, p99", "s", ((_quantile(0.99, "version"), "version {{version}}"),)),
            Panel(
                "Mean time by stage",
                "s",
                (
                    (
                        f"sum by (stage) (rate(mainspring_stage_seconds_sum{_OF}[{_RATE}]))\n/\n"
                        f"sum by (stage) (rate(mainspring_stage_seconds_count{_OF}[{_RATE}]))",
                        "{{stage}}",
                    ),
                ),
            ),
            Panel(
                "Failures by version",
                "reqps",
                (
                    (
                        f"sum by (version) (rate(mainspring_inference_failures_total{_OF}[{_RATE}]))",
                        "version {{version}}",
                    ),
                ),
                "Errors of the server and rejections under overload.",
            ),
            Panel(
                "Rejected requests",
                "reqps",
                ((f"sum by (cause) (rate(mainspring_rejections_total{_OF}[{_RATE}]))", "{{cause}}"),),
            ),
            Panel(
                "Queueing, p99, of the deadline",
                "percentunit",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, endpoint) "
                        f'(rate(mainspring_stage_seconds_bucket{{endpoint=~"$endpoint",stage="queue"}}[{_RATE}])))\n'
                        f"/ on (endpoint)\nmax by (endpoint) (mainspring_deadline_seconds{_OF})",
                        "{{endpoint}}",
                    ),
                ),
            ),
            Panel(
                "Rows in the queue", "short", ((f"sum by (endpoint) (mainspring_waiting_rows{_OF})", "{{endpoint}}"),)
            ),
            Panel(
                "Saturation",
                "percentunit",
                (
                    (
                        f"sum by (endpoint) (rate(mainspring_requests_total{_OF}[{_RATE}]))\n/ on (endpoint)\n"
                        f"max by (endpoint) (mainspring_capacity_requests_per_second{_OF})",
                        "{{endpoint}}",
                    ),
                ),
                "Share of the load that `mainspring bench` measured as the highest that meets the deadline.",
            ),
            Panel(
                "Rows of a batch, mean",
                "short",
                (
                    (
                        f"sum by (endpoint) (rate(mainspring_batch_rows_sum{_OF}[{_RATE}]))\n/\n"
                        f"sum by (endpoint) (rate(mainspring_batch_rows_count{_OF}[{_RATE}]))",
                        "{{endpoint}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Quality",
        (
            Panel(
                "Quality",
                "none",
                ((f"mainspring_window_quality{_OF}", "{{metric}} version {{version}}"),),
                "Of the newest labelled window, by the version that predicted.",
            ),
            Panel("Label coverage", "percentunit", ((f"mainspring_label_coverage_ratio{_OF}", "{{endpoint}}"),)),
            Panel("Delay of labels, median", "s", ((f"mainspring_label_delay_seconds{_OF}", "{{endpoint}}"),)),
            Panel(
                "Drifted columns",
                "short",
                ((f"mainspring_window_drifted_columns{_OF}", "{{endpoint}}"),),
                "Distance from the training data. It is shown, and is no alarm: seasons move it.",
            ),
            Panel("Newest window, rows", "short", ((f"mainspring_window_predictions{_OF}", "{{endpoint}}"),)),
            Panel(
                "Stored features that are not present",
                "percentunit",
                (
                    (
                        "sum by (status) (rate("
                        f'mainspring_stored_features_total{{endpoint=~"$endpoint",status!="present"}}[{_RATE}]))\n'
                        f"/ on () group_left ()\nsum(rate(mainspring_stored_features_total{_OF}[{_RATE}]))",
                        "{{status}}",
                    ),
                ),
                "Of the requests by key: expired, missing or unavailable values, and nulls.",
            ),
            Panel("Lag of feature views", "s", (("mainspring_view_lag_seconds", "{{view}}"),)),
            Panel("Age of the sources' data", "s", (("mainspring_source_age_seconds", "{{source}}"),)),
        ),
    ),
    (
        "Versions and rollouts",
        (
            Panel("Served versions", "short", ((f"mainspring_served_version{_OF}", "{{endpoint}} {{version}}"),)),
            Panel("Weights of a rollout", "percentunit", ((f"mainspring_arm_weight{_OF}", "version {{version}}"),)),
            Panel(
                "Failures of a rollout",
                "reqps",
                (
                    (
                        f"sum by (version, kind) (rate(mainspring_arm_failures_total{_OF}[{_RATE}]))",
                        "version {{version}} {{kind}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Processes",
        (
            Panel(
                "Processor time",
                "percentunit",
                ((f"rate(mainspring_process_cpu_seconds_total[{_RATE}])", "{{process}}"),),
                "Processors that each process uses.",
            ),
            Panel("Memory", "bytes", (("mainspring_process_resident_memory_bytes", "{{process}}"),)),
            Panel("Connections", "short", (("mainspring_connections", "{{slot}}"),)),
        ),
    ),
    (
        "Cost",
        (
            Panel(
                "Cost today",
                "short",
                (("mainspring_cost_today", "{{kind}} {{currency}}"),),
                "Since midnight, UTC. Platform is Mainspring itself; all kinds together are the machines' price.",
            ),
            Panel(
                "Cost of endpoints today",
                "short",
                ((f"mainspring_endpoint_cost_today{_OF}", "{{endpoint}} {{currency}}"),),
                "Direct cost, without idle and platform.",
            ),
            Panel("Processor time today", "s", (("mainspring_cpu_today_seconds", "{{kind}}"),)),
        ),
    ),
)


def dashboard(rows: Sequence[tuple[str, Sequence[Panel]]] = ROWS, *, tenant: str = "") -> dict[str, Any]:
    """Return the dashboard of all endpoints, or of a tenant's."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, charts in rows:
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": top}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        top += 1
        for number, chart in enumerate(charts):
            across = number * _WIDE % _COLUMNS
            if number and across == 0:
                top += _TALL
            panels.append(_panel(len(panels) + 1, chart, tenant, {"h": _TALL, "w": _WIDE, "x": across, "y": top}))
        top += _TALL
    return {
        "uid": f"ms-{tenant}" if tenant else "mainspring-endpoints",
        "title": f"Mainspring: endpoints of {tenant}" if tenant else "Mainspring: endpoints",
        "tags": ["mainspring"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource(), _endpoints(tenant)]},
        "annotations": {"list": [_promotions(tenant)]},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, tenant: str, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": of_tenant(query, tenant),
                "legendFormat": legend,
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _endpoints(tenant: str) -> dict[str, Any]:
    return {
        "name": "endpoint",
        "label": "Endpoint",
        "type": "query",
        "datasource": _SOURCE,
        "query": of_tenant("label_values(mainspring_served_version, endpoint)", tenant),
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _promotions(tenant: str) -> dict[str, Any]:
    return {
        "name": "New route",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": of_tenant(f"changes(max by (endpoint) (mainspring_route_revision{_OF})[2m:]) > 0", tenant),
        "titleFormat": "{{endpoint}}: new route",
    }
