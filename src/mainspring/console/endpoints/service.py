"""View model of an endpoint's service: throughput, latency, errors, queue and saturation, from the worker's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints import series
from mainspring.console.endpoints.capacity import StageRow, capacity
from mainspring.console.endpoints.live import live
from mainspring.console.endpoints.overview import objectives_of, promotions
from mainspring.console.endpoints.period import Period, windows_in
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.monitoring.service.burning import ObjectiveReport
from mainspring.monitoring.service.readings import GATEWAY
from mainspring.monitoring.service.samples import CHILDREN_CPU, REJECTIONS, REQUESTS, SECONDS, Sample, merged, variable
from mainspring.project import Project
from mainspring.serving.load.numbers import Distribution
from mainspring.serving.model import LATENCY_BOUNDS

_STEPS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, DAY, 7 * DAY)
_MOST_STEPS = 96  # in a chart
_DEFAULT = DAY
_TONES = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True, slots=True)
class Slot:
    """Counts of an interval of the charts.

    Attributes:
        of: Of the endpoint; `None` where nothing was observed.
        gateway: Of the gateway's processes.
    """

    start: int
    end: int
    of: Sample | None
    gateway: Sample | None

    def count(self, key: str) -> float:
        return 0.0 if self.of is None else self.of.counts.get(key, 0.0)

    def by(self, name: str) -> dict[str, float]:
        """Return the variable part of each key of a name -> count: status -> requests."""
        return {} if self.of is None else variable(self.of.counts, name)

    def rate(self, count: float) -> float | None:
        """Return a count by second of the time that was observed."""
        return None if self.of is None else count * SECOND / max(1, min(self.of.observed_us, self.end - self.start))

    def latency_ms(self, share: float) -> float | None:
        """Return a quantile of the durations, interpolated within its bucket."""
        counts = {float(bound): count for bound, count in self.by(SECONDS).items()}
        if not counts:
            return None
        bounds = sorted({*LATENCY_BOUNDS, *counts})  # empty buckets too, as a bucket begins at the bound before it
        below = dict(zip(bounds, accumulate(counts.get(bound, 0.0) for bound in bounds), strict=True))
        value = Distribution(0.0, below).quantile(share)
        return None if value is None else 1000 * value


@dataclass(frozen=True, slots=True)
class Service:
    """Service of an endpoint. `logged` is the latency in the monitor's windows, `stages` that of the live gateways."""

    objectives: tuple[ObjectiveReport, ...]
    charts: tuple[Chart, ...]
    logged: Chart | None
    stages: tuple[StageRow, ...]
    since: int | None  # of the charts
    until: int | None


def service(project: Project, endpoint: str, period: Period) -> Service:
    """Return the service of an endpoint, without a choice of the last day by the machine's clock."""
    since, until = period.bounds(project.wall.now(), _DEFAULT)
    slots = slots_of(project.service.samples(since, until, [endpoint, GATEWAY]), endpoint)
    state = live(project, endpoint, project.routes.current().get(endpoint))
    windows = windows_in(project, endpoint, period)
    marks = promotions(project, state, windows)
    found = capacity(project, endpoint, {arm.digest: arm.weight for arm in state.arms})
    return Service(
        objectives=objectives_of(project, endpoint),
        charts=_charts(slots) if slots else (),
        logged=next(each for each in series.charts(windows, None, None, marks) if each.id == "latency")
        if windows
        else None,
        stages=found.stages,
        since=slots[0].start if slots else None,
        until=slots[-1].end if slots else None,
    )


def slots_of(samples: Sequence[Sample], endpoint: str) -> list[Slot]:
    """Return the intervals from the first to the last sample of the endpoint, oldest first.

    They are as long as the longest sample, as one is not divided, and at most `_MOST_STEPS`.
    """
    own = [sample for sample in samples if sample.subject == endpoint]
    if not own:
        return []
    first, last = min(sample.start for sample in own), max(sample.start for sample in own)
    least = max((last - first) // _MOST_STEPS, max(sample.end - sample.start for sample in own) * 2 // 3)
    step = next((each for each in _STEPS if each >= least), _STEPS[-1])
    groups: dict[tuple[int, bool], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.start // step, sample.subject == endpoint), []).append(sample)
    return [
        Slot(
            number * step,
            (number + 1) * step,
            merged(groups[number, True]) if (number, True) in groups else None,
            merged(groups[number, False]) if (number, False) in groups else None,
        )
        for number in range(first // step, last // step + 1)
    ]


def _charts(slots: Sequence[Slot]) -> tuple[Chart, ...]:
    def chart(
        id_: str,
        title: str,
        unit: str,
        lines: Sequence[tuple[str, Callable[[Slot], float | None]]],
        write: Callable[[float | None], str | Markup],
        *,
        kind: str = "lines",
        **more: object,
    ) -> Chart:
        drawn = [Line(name, tuple(map(of, slots)), tone) for (name, of), tone in zip(lines, _TONES, strict=False)]
        rows = tuple(
            (formats.span(slot.start, slot.end), *(write(of(slot)) for _, of in lines)) for slot in reversed(slots)
        )
        starts, ends = tuple(slot.start for slot in slots), tuple(slot.end for slot in slots)
        table = Table(("Time", *(name for name, _ in lines)), rows)
        return Chart(id_, title, kind, unit, starts, ends, tuple(drawn), table, pieces="intervals", **more)  # type: ignore[arg-type]

    def written(value: float | None) -> str | Markup:
        return formats.missing("not observed") if value is None else formats.number(value, 3)

    statuses = _keys(slots, REQUESTS)
    failed = [status for status in statuses if not status.startswith("2")]
    causes = _keys(slots, REJECTIONS)
    return (
        chart(
            "throughput", "Throughput", "number",
            [("requests/s", lambda slot: slot.rate(sum(slot.by(REQUESTS).values())))], written,
            note="requests a second, whatever their answer",
        ),
        chart(
            "answered", "Latency", "ms",
            [("p50", lambda slot: slot.latency_ms(0.5)), ("p99", lambda slot: slot.latency_ms(0.99))],
            formats.milliseconds,
            note="of answered requests, from the gateway’s counts by duration",
            empty="No request was answered in this time.",
        ),
        chart(
            "errors", "Errors by status", "count",
            [(status, _counted(f"{REQUESTS} {status}")) for status in failed[: len(_TONES)]], _whole,
            kind="bars", stacked=True,
            note="requests that were not answered with 2xx",
            empty="Every request was answered with 2xx.",
        ),
        chart(
            "rejections", "Rejected under load", "count",
            [(cause.replace("_", " "), _counted(f"{REJECTIONS} {cause}")) for cause in causes[: len(_TONES)]], _whole,
            kind="bars", stacked=True,
            note="requests that the queue did not take, or that waited too long",
            empty="No request was rejected.",
        ),
        chart(
            "queue", "Queue", "count",
            [("waiting rows", lambda slot: None if slot.of is None else slot.of.peaks.get("waiting_rows"))], _whole,
            note="the most rows that waited at a look, once a minute",
            empty="The queue was not observed in this time.",
        ),
        chart(
            "cpu", "Saturation", "number",
            [("processor cores", _cores)], written,
            note="cores that the gateway’s processes used, for all endpoints",
            empty="The gateway’s processes were not observed in this time.",
        ),
    )  # fmt: skip


def _keys(slots: Sequence[Slot], name: str) -> list[str]:
    """Return the variable parts of a name's keys, the most frequent first."""
    counts: dict[str, float] = {}
    for slot in slots:
        for key, count in slot.by(name).items():
            counts[key] = counts.get(key, 0.0) + count
    return sorted(counts, key=lambda key: -counts[key])


def _counted(key: str) -> Callable[[Slot], float | None]:
    return lambda slot: None if slot.of is None else slot.count(key)


def _whole(value: float | None) -> str | Markup:
    return formats.missing("not observed") if value is None else formats.whole(round(value))


def _cores(slot: Slot) -> float | None:
    if slot.gateway is None:
        return None
    observed = max(1, min(slot.gateway.observed_us, slot.end - slot.start))
    used = slot.gateway.counts.get("cpu_s", 0.0) + slot.gateway.counts.get(CHILDREN_CPU, 0.0)
    return used * SECOND / observed
