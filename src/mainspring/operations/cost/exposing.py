"""Costs of today and budgets for Prometheus. Labels are kinds of subjects, endpoints and budgets: declared, or few."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from mainspring.core.errors import MainspringError
from mainspring.core.money import NANOS
from mainspring.core.time import DAY
from mainspring.operations.budgets.standing import standings
from mainspring.operations.cost.machine import metered_at
from mainspring.operations.cost.reporting import cost_parts, report_of
from mainspring.project import Project


def today(project: Project) -> Iterator[Metric]:
    """Yield what was used and what it cost since midnight, UTC. Raises as `UsageStore.read` does."""
    cost = _gauge("cost_today", "Cost since midnight, UTC.", "kind", "currency")
    by_endpoint = _gauge("endpoint_cost_today", "Direct cost since midnight, UTC.", "endpoint", "currency")
    cpu = _gauge("cpu_today_seconds", "Processor time since midnight, UTC.", "kind")
    age = _gauge("metering_age_seconds", "Time since this machine was metered.", "machine")
    now = project.wall.now()
    first = now - now % DAY
    found, rates = cost_parts(project, first, now + 1)
    for line in report_of(project, found, rates, "kind", first, now + 1, ()).lines:
        cpu.add_metric([line.name], line.cpu_hours * 3600)
        if rates is not None and line.cost is not None:
            cost.add_metric([line.name, rates.currency], line.cost)
    if rates is not None:
        direct = [part for part in found if part.subject.kind == "endpoint"]
        for line in report_of(project, direct, rates, "endpoint", first, now + 1, ()).lines:
            by_endpoint.add_metric([line.name, rates.currency], line.cost or 0.0)
    for machine, at in metered_at(project).items():
        age.add_metric([machine], max(0, now - at) / 1e6)
    yield from (cost, by_endpoint, cpu, age)


def budgets(project: Project) -> Iterator[Metric]:
    """Yield the declared budgets of this month; none while they cannot be judged, which the monitor says."""
    try:
        found = standings(project)
    except MainspringError:
        return
    labels = ("budget", "currency")
    amount = _gauge("budget_amount", "Amount of a budget of this month, UTC.", *labels)
    spent = _gauge("budget_spent", "Spent of a budget of this month.", *labels)
    ahead = _gauge("budget_forecast", "Forecast of a budget's spending at the month's end.", *labels)
    for each in found:
        named = [each.budget, each.amount.currency]
        amount.add_metric(named, each.amount.units)
        spent.add_metric(named, each.spent.units)
        if each.forecast is not None:
            ahead.add_metric(named, each.forecast.expected / NANOS)
    yield from (amount, spent, ahead)


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mainspring_{name}", told, labels=labels)
