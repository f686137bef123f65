"""View model of costs: where the money goes, by day and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.core.errors import MainspringError
from mainspring.core.money import NANOS
from mainspring.core.time import DAY, HOUR
from mainspring.cost.budgets.judging import WITHIN
from mainspring.cost.statement import OTHER, PLATFORM, Part
from mainspring.cost.usage import IDLE, MACHINE
from mainspring.operations.budgets.reporting import BudgetReport, budgets
from mainspring.operations.cost.reporting import CostReport, cost_parts, report_of
from mainspring.project import Project

BY = ("kind", "endpoint", "version", "model", "run", "step", "view", "batch", "job", "table", "key", "team", "measure")
SPREADS: Mapping[str, tuple[str, ...]] = {"apart": (), "platform": (PLATFORM,), "all": (PLATFORM, IDLE)}
_TONES = ("first", "second")
_REST = "other work"
_SHOWN = 6  # budgets, at least


@dataclass(frozen=True, slots=True)
class CostPage:
    """Costs of some days.

    Attributes:
        idle, platform: Shares of the machines' cost; `None` without a price.
        addresses: Name of a line -> address of its page.
        budgets: Of this month, the most urgent first.
        shown: So many of them are shown at once: all that are not within, and some more.
        unjudged: Why budgets cannot be judged; empty if they can.
    """

    days: int
    spread: str
    report: CostReport
    charts: tuple[Chart, ...]
    idle: float | None
    platform: float | None
    addresses: Mapping[str, str]
    budgets: Sequence[BudgetReport]
    shown: int
    unjudged: str


def cost_page(project: Project, by: str, days: int, spread: str) -> CostPage:
    """Return the costs of the last days."""
    now = project.wall.now()
    since = now - now % DAY - (days - 1) * DAY
    found, rates = cost_parts(project, since, now + 1, SPREADS[spread])
    report = report_of(project, found, rates, by, since, now + 1, SPREADS[spread])
    kinds = {line.name: line for line in report_of(project, found, rates, "kind", since, now + 1, ()).lines}

    def share(name: str) -> float | None:
        return kinds[name].share if name in kinds else 0.0 if report.total.cost is not None else None

    return CostPage(
        days, spread, report, (_chart(found, since, days, report.currency),) if found else (), share(IDLE),
        share(PLATFORM), _addresses(report), *_budgets(project),
    )  # fmt: skip


def _budgets(project: Project) -> tuple[Sequence[BudgetReport], int, str]:
    try:
        found = budgets(project)
    except MainspringError as error:
        return (), 0, str(error)
    return found, max(_SHOWN, sum(each.level != WITHIN for each in found)), ""


def _addresses(report: CostReport) -> dict[str, str]:
    folder = {"endpoint": "endpoints", "run": "runs", "view": "features"}.get(report.by)
    if folder is None:
        return {}
    machine = {PLATFORM, IDLE, OTHER}
    names = [line.name for line in report.lines if line.name not in machine and not line.name.startswith("(")]
    return {name: f"/{folder}/{name}" for name in names}


def _chart(found: Sequence[Part], since: int, days: int, currency: str) -> Chart:
    """Return bars of each day's cost, or of its core hours without a price: the dearest subjects, and the rest."""
    starts = tuple(since + number * DAY for number in range(days))
    sums: dict[str, float] = {}
    by_day: dict[int, dict[str, float]] = {}
    for part in found:
        if (amount := _amount(part, currency)) is not None:
            name = _name(part)
            sums[name] = sums.get(name, 0.0) + amount
            of = by_day.setdefault(part.day, {})
            of[name] = of.get(name, 0.0) + amount
    machine = [name for name in (OTHER, PLATFORM, IDLE) if name in sums]
    direct = sorted(sums.keys() - set(machine), key=lambda name: (-sums[name], name))
    named, rest = direct[: len(_TONES)], direct[len(_TONES) :]
    groups = [([name], name, tone) for name, tone in zip(named, _TONES, strict=False)]
    groups += [(rest, _REST, "third")] if rest else []
    tones = {OTHER: "fourth", PLATFORM: "fifth", IDLE: "rest"}
    groups += [([name], name, tones[name]) for name in machine]

    def values(names: Sequence[str]) -> tuple[float | None, ...]:
        return tuple(sum(by_day[day].get(name, 0.0) for name in names) if day in by_day else None for day in starts)

    lines = tuple(Line(name, values(names), tone) for names, name, tone in groups)
    rows = tuple(
        (formats.day(day), *(formats.number(line.values[number] or 0.0, 4) for line in lines))
        for number, day in reversed(list(enumerate(starts)))
    )
    return Chart(
        "cost", f"Cost a day, {currency}" if currency else "Core hours a day", "bars", "number", starts,
        tuple(day + DAY for day in starts), lines, Table(("Day", *(line.name for line in lines)), rows),
        note="stacked: the dearest subjects, other work, and the rest of the machines", stacked=True, pieces="days",
        empty="Nothing was metered in these days.",
    )  # fmt: skip


def _amount(part: Part, currency: str) -> float | None:
    if currency:
        return None if part.nanos is None else part.nanos / NANOS
    return part.amount / HOUR if part.measure == "cpu" else None


def _name(part: Part) -> str:
    subject = part.subject
    return subject.id if subject.kind == MACHINE else f"{subject.kind} {subject.id}"
