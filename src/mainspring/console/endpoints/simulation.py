"""View model of an endpoint's last simulation: its policies by cost and p99."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console.endpoints.drawing import across, below, drawing, level, scales
from mainspring.project import Project
from mainspring.serving.simulation_report import Outcome, SimulationReport


@dataclass(frozen=True, slots=True)
class Simulation:
    """A report, and its picture: empty if no policy answered anything."""

    report: SimulationReport
    picture: Markup
    priced: bool

    @property
    def best(self) -> Outcome | None:
        """The chosen policy."""
        return None if self.report.best is None else self.report.outcomes[self.report.best]


def simulation(project: Project, endpoint: str) -> Simulation | None:
    """Return an endpoint's last simulation; `None` if there is none."""
    report = project.simulations.last(endpoint)
    if report is None:
        return None
    priced = any(each.hour is not None for each in report.outcomes)
    return Simulation(report, cost_picture(report, priced=priced), priced)


def cost_picture(report: SimulationReport, *, priced: bool) -> Markup:
    """Return a drawing of p99 against cost, each policy with its number, the chosen one in a ring."""
    places = [
        (number, each, _cost(each, priced=priced), each.p99_ms)
        for number, each in enumerate(report.outcomes)
        if each.p99_ms
    ]
    if not places:
        return Markup("")
    x, y = scales([cost for _, _, cost, _ in places], [*(p99 for *_, p99 in places), report.deadline_ms])
    unit = f" {places[0][1].currency}" if priced else " h"
    inside = Markup("").join(
        [
            *(across(y(tick), f"{tick:,g} ms") for tick in y.ticks),
            *(below(x(tick), f"{tick:,g}{unit}") for tick in x.ticks),
            level(y(report.deadline_ms), "deadline"),
            *(_dot(number, each, x(cost), y(p99), chosen=number == report.best) for number, each, cost, p99 in places),
        ]
    )
    return drawing(inside, f"p99 against cost of {len(places)} policies; the numbers are in the table below.")


def _cost(each: Outcome, *, priced: bool) -> float:
    """Return a cost above 0, as its axis is logarithmic."""
    return max(1e-6, (each.month or 0.0) if priced else each.machine_hours)


def _dot(number: int, each: Outcome, x: float, y: float, *, chosen: bool) -> Markup:
    ring = Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="8"/>').format(x, y) if chosen else Markup("")
    return ring + Markup(
        '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
        '<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>'
    ).format(
        "second" if each.meets else "alert", x, y, f"{each.policy} on {each.machine}: {each.safely:.1%} in time",
        x + 10, y + 4, number + 1,
    )  # fmt: skip
