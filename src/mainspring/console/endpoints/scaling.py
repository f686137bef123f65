"""View model of an endpoint's executors and memory: what there is now, over time, and every decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints.period import Period
from mainspring.console.endpoints.simulation import Simulation, simulation
from mainspring.core.time import DAY
from mainspring.operations.scaling import ScalingNow, State, decisions, history, live, now
from mainspring.project import Project
from mainspring.serving.residency.memory import Decision, What

_STEPS = 96  # of a chart
_MOST_MARKS = 24  # more would hide the lines
_MOST_ROWS = 200
_MB = 1e6
STATES = {  # decision -> its word and its look
    What.LOADED: ("Loaded", "fresh"),
    What.EVICTED: ("Out of memory", "idle"),
    What.REFUSED: ("Refused", "alert"),
    What.SCALED: ("Scaled", "plain"),
    What.ENDED: ("Ended", "idle"),
}


@dataclass(frozen=True, slots=True)
class ScalingPage:
    """The page. `decisions` are the newest ones, of all `count`."""

    now: ScalingNow | None  # of an endpoint that is declared
    processes: int
    memory: int
    memory_limit: int
    charts: tuple[Chart, ...]
    decisions: tuple[Decision, ...]
    count: int
    since: int
    until: int
    simulation: Simulation | None


def scaling_page(project: Project, endpoint: str, period: Period) -> ScalingPage:
    """Return the page of an endpoint, without a choice of the last day by the machine's clock."""
    at = project.wall.now()
    since, until = period.bounds(at, DAY)
    found = decisions(project, 0)
    own = {each.digest for each in found if endpoint in each.endpoints}
    shown = [each for each in found if since <= each.at < until and each.digest in own]
    first = max(since, min((each.at for each in found if each.digest in own), default=at))
    last = min(until, at)
    told = live(project)
    declared = endpoint in project.definitions.endpoints
    return ScalingPage(
        now=now(project, endpoint, told) if declared else None,
        processes=told.processes,
        memory=told.uses.used,
        memory_limit=told.uses.limit,
        charts=_charts(found, shown, endpoint, first, last) if own and first < last else (),
        decisions=tuple(reversed(shown[-_MOST_ROWS:])),
        count=len(shown),
        since=first if own else since,
        until=last,
        simulation=simulation(project, endpoint),
    )


def _charts(
    found: Sequence[Decision], shown: Sequence[Decision], endpoint: str, first: int, last: int
) -> tuple[Chart, ...]:
    step = max(1, (last - first) // _STEPS)
    starts = tuple(range(first, last, step))
    ends = tuple(min(last, start + step) for start in starts)
    states = history(found, endpoint, ends)
    marks = tuple((each.at, _mark(each)) for each in shown[-_MOST_MARKS:])
    limit = max((each.budget for each in states if each is not None), default=0)

    def chart(
        id_: str, title: str, lines: Sequence[tuple[str, Callable[[State], float], str]], note: str, unit: str,
        write: Callable[[float], str | Markup], level: tuple[float, str] | None = None,
    ) -> Chart:  # fmt: skip
        values = [[None if each is None else of(each) for each in states] for _, of, _ in lines]
        rows = tuple(
            (formats.span(starts[place], ends[place]),
             *(formats.missing("not known") if (value := line[place]) is None else write(value) for line in values))
            for place in reversed(range(len(starts)))
            if place == 0 or any(line[place] != line[place - 1] for line in values)
        )  # fmt: skip
        return Chart(
            id_, title, "lines", unit, starts, ends,
            tuple(Line(name, tuple(line), tone) for (name, _, tone), line in zip(lines, values, strict=True)),
            Table(("Changed in", *(name for name, _, _ in lines)), rows),
            note=note, marks=marks, level=level, pieces="intervals",
        )  # fmt: skip

    return (
        chart(
            "executors", "Executors", [("executors", lambda each: each.executors, "first")],
            "of this endpoint’s models, over all processes; a mark for each decision", "count",
            lambda value: formats.whole(round(value)),
        ),
        chart(
            "memory", "Memory", [
                ("this endpoint", lambda each: each.nbytes / _MB, "first"),
                ("all models", lambda each: each.used / _MB, "second"),
            ],
            "megabytes of models, as measured when they were loaded", "number",
            lambda value: formats.size(round(value * _MB)), (limit / _MB, "bound") if limit else None,
        ),
    )  # fmt: skip


def _mark(each: Decision) -> str:
    """Return a decision in a word; the table has the reason."""
    return f"{each.before} → {each.executors}" if each.what == What.SCALED else STATES[each.what][0].lower()
