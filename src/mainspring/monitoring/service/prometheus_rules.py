"""Recording and alert rules for Prometheus, rendered from the declared objectives.

They count what `burning` counts, so a Prometheus alerts as the worker does, also while the worker is away. Names of
recorded series follow https://prometheus.io/docs/practices/rules/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.time import SECOND, format_duration
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.service.burning import FEWEST_BAD, RULES, BurnRule
from mainspring.monitoring.service.objectives import AVAILABILITY, LATENCY, Objective, percent

BAD = "endpoint_objective:mainspring_bad_events:ratio"  # with the window behind it
PAGE, TICKET = "page", "ticket"
_STEP = "1m"  # of looks at a view's lag
# Names of metrics, also of recorded ones; and texts, which may look like them.
_METRIC = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w:])(?:endpoint_objective:)?mainspring_[\w:]+(\{)?')
Rule = dict[str, Any]


def rules(monitors: Iterable[Monitor], burn_rules: Sequence[BurnRule] = RULES, *, tenant: str = "") -> dict[str, Any]:
    """Return a document of rule groups.

    Args:
        monitors: Whose objectives become rules.
        burn_rules: Alarms of error budgets; others than the usual are for tests.
        tenant: Whose metrics are read, and who is named by alerts; empty: all metrics, and nobody.
    """
    watched = [monitor for monitor in monitors if monitor.objectives]
    recorded = [rule for each in watched for rule in _recorded(each, burn_rules)]
    alerts = [rule for each in watched for rule in _alerts(each, burn_rules)]
    # Rules of one group are evaluated one after another, so that an alert sees what was recorded in its round.
    groups = [("mainspring_objectives", [*recorded, *alerts]), ("mainspring", [*_health()])]
    return {"groups": [{"name": name, "rules": [_of(tenant, rule) for rule in each]} for name, each in groups if each]}


def _of(tenant: str, rule: Rule) -> Rule:
    if not tenant:
        return rule
    return {**rule, "expr": of_tenant(rule["expr"], tenant), "labels": {"tenant": tenant, **rule["labels"]}}


def of_tenant(expression: str, tenant: str) -> str:
    """Return a query of one tenant's metrics; of all, if there is no tenant."""

    def selected(found: re.Match[str]) -> str:
        if found[0].startswith('"'):
            return found[0]
        return f'{found[0]}tenant="{tenant}", ' if found[1] else f'{found[0]}{{tenant="{tenant}"}}'

    return _METRIC.sub(selected, expression) if tenant else expression


def yaml(document: Mapping[str, Any]) -> str:
    """Return a document of rule groups as YAML."""
    lines = [
        "# Rendered by `mainspring export prometheus-rules` from the declared objectives.",
        "groups:",
    ]
    for group in document["groups"]:
        lines += [f"  - name: {group['name']}", "    rules:"]
        for rule in group["rules"]:
            first = "- "
            for key, value in rule.items():
                lines += _entry(f"      {first}{key}", value)
                first = "  "
    return "\n".join(lines) + "\n"


def _entry(head: str, value: str | Mapping[str, str]) -> Iterator[str]:
    indent = " " * 10
    if not isinstance(value, str):
        yield f"{head}:"
        yield from (f"{indent}{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in value.items())
    elif "\n" in value:
        yield f"{head}: |-"
        yield from (indent + line for line in value.splitlines())
    else:
        yield f"{head}: {json.dumps(value, ensure_ascii=False)}"


def _recorded(monitor: Monitor, burn_rules: Sequence[BurnRule]) -> Iterator[Rule]:
    for objective in monitor.objectives:
        labels = _labels(monitor, objective)
        for window_us in sorted({window for rule in burn_rules for window in (rule.short_us, rule.long_us)}):
            window = _window(window_us)
            expression = _bad(monitor.endpoint, objective, window)
            yield {"record": f"{BAD}_{window}", "expr": expression, "labels": labels}


def _alerts(monitor: Monitor, burn_rules: Sequence[BurnRule]) -> Iterator[Rule]:
    for objective in monitor.objectives:
        labels = _labels(monitor, objective)
        of = "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"
        for rule in burn_rules:
            long, short, share = _window(rule.long_us), _window(rule.short_us), f"{rule.share(objective):.6g}"
            few = _count(monitor.endpoint, objective, long)
            yield {
                "alert": "MainspringErrorBudgetBurn",
                "expr": f"{BAD}_{long}{of} > {share}\nand\n{BAD}_{short}{of} > {share}\n"
                f"and on () ({few} >= {FEWEST_BAD})",
                "labels": {**labels, "severity": PAGE if rule.page else TICKET, "window": long},
                "annotations": {
                    "summary": f"{monitor.endpoint}: {objective.name} burns its error budget",
                    "description": (
                        f"{objective} is promised; {{{{ $value | humanizePercentage }}}} were bad in the last {long}, "
                        f"more than {percent(rule.share(objective))} of them, and so in the last {short}."
                    ),
                },
            }


def _labels(monitor: Monitor, objective: Objective) -> dict[str, str]:
    return {"endpoint": monitor.endpoint, "objective": objective.name}


def _window(window_us: int) -> str:
    return format_duration(window_us).replace(" ", "")


def _bad(endpoint: str, objective: Objective, window: str) -> str:
    """Return the share of bad events in a window."""
    if objective.kind == AVAILABILITY:
        total = f"sum(rate({_requests(endpoint, '[235]..|429')}[{window}]))"
        return f"(sum(rate({_requests(endpoint, '5..|429')}[{window}])) or {total} * 0)\n/\n{total}"
    if objective.kind == LATENCY:
        return (
            f"1 -\nsum(rate({_within(endpoint, objective)}[{window}]))\n/\n"
            f"sum(rate(mainspring_inference_seconds_count{{endpoint={json.dumps(endpoint)}}}[{window}]))"
        )
    return f"avg(avg_over_time(({_stale(objective)})[{window}:{_step(window)}]))"


def _count(endpoint: str, objective: Objective, window: str) -> str:
    """Return the number of bad events in a window."""
    if objective.kind == AVAILABILITY:
        return f"sum(increase({_requests(endpoint, '5..|429')}[{window}]))"
    if objective.kind == LATENCY:
        total = f"sum(increase(mainspring_inference_seconds_count{{endpoint={json.dumps(endpoint)}}}[{window}]))"
        return f"{total} - sum(increase({_within(endpoint, objective)}[{window}]))"
    return f"sum(sum_over_time(({_stale(objective)})[{window}:{_step(window)}]))"


def _requests(endpoint: str, statuses: str) -> str:
    return f'mainspring_requests_total{{endpoint={json.dumps(endpoint)}, status=~"{statuses}"}}'


def _within(endpoint: str, objective: Objective) -> str:
    # Prometheus 3 writes a whole bound with ".0", other tools without.
    bound = f"{objective.within_us / SECOND:g}"
    matched = f'="{bound}"' if "." in bound else f'=~"{bound}([.]0)?"'
    return f"mainspring_inference_seconds_bucket{{endpoint={json.dumps(endpoint)}, le{matched}}}"


def _stale(objective: Objective) -> str:
    return f"mainspring_view_lag_seconds{{view={json.dumps(objective.view)}}} > bool {objective.within_us / SECOND:g}"


def _step(window: str) -> str:
    return _STEP if window.endswith(("m", "h", "d")) else "1s"


def _health() -> Iterator[Rule]:
    """Yield the alerts that need no declaration."""
    for name, severity, wait, expression, summary in (
        ("GatewayDown", PAGE, "1m", "mainspring_gateway_worker_up == 0", "A gateway process does not answer"),
        (
            "GatewayNotReady",
            PAGE,
            "2m",
            "mainspring_gateway_ready == 0",
            "A gateway process takes no traffic",
        ),
        (
            "RefusedVersion",
            TICKET,
            "5m",
            "mainspring_refused_versions > 0",
            "The newest route of an endpoint cannot be served; the version before continues",
        ),
        (
            "CatalogAway",
            TICKET,
            "5m",
            "mainspring_catalog_stale_seconds > 60",
            "The catalog does not answer; promotions and new keys wait",
        ),
        (
            "PredictionsLost",
            TICKET,
            "0m",
            'sum by (endpoint, cause) (increase(mainspring_unlogged_predictions_total{cause!="sampled"}[15m])) > 0',
            "Predictions of {{ $labels.endpoint }} are missing in the log ({{ $labels.cause }})",
        ),
        (
            "LogsLost",
            TICKET,
            "0m",
            "mainspring_prediction_logs_lost > 0",
            "Prediction logs of machines without a worker were not moved to their end",
        ),
        (
            "DamagedSegments",
            TICKET,
            "0m",
            "mainspring_damaged_segments > 0",
            "Segments of the prediction log were set aside as damaged",
        ),
        (
            "Saturated",
            TICKET,
            "15m",
            'sum by (endpoint) (rate(mainspring_requests_total{endpoint!=""}[5m]))\n/ on (endpoint)\n'
            "max by (endpoint) (mainspring_capacity_requests_per_second) > 0.8",
            "{{ $labels.endpoint }} has {{ $value | humanizePercentage }} of the load that it was measured to bear",
        ),
        (
            "MonitorSilent",
            TICKET,
            "15m",
            "time() - mainspring_window_computed_timestamp_seconds > 900\nand on (endpoint)\n"
            'sum by (endpoint) (rate(mainspring_requests_total{endpoint!=""}[15m])) > 0',
            "The windows of {{ $labels.endpoint }} are not updated, although it has traffic",
        ),
        (
            "MeteringSilent",
            TICKET,
            "15m",
            "mainspring_metering_age_seconds > 600",
            "{{ $labels.machine }} is not metered: its costs of this time will be missing",
        ),
        ("IncidentPage", PAGE, "0m", 'mainspring_open_incidents{severity="page"} > 0', _INCIDENT),
        ("IncidentTicket", TICKET, "0m", 'mainspring_open_incidents{severity="ticket"} > 0', _INCIDENT),
    ):
        yield {
            "alert": f"Mainspring{name}",
            "expr": expression,
            "for": wait,
            "labels": {"severity": severity},
            "annotations": {"summary": summary},
        }


_INCIDENT = "{{ $value }} open incidents of {{ $labels.endpoint }}"
