"""The capacity of an endpoint, measured by `mainspring bench`, as values and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from mainspring.console.charts import small_bars
from mainspring.console.endpoints.drawing import Scale, across, below, drawing, level, scales
from mainspring.project import Project
from mainspring.serving.load.numbers import Distribution, EndpointNumbers, read_numbers
from mainspring.serving.model import Baseline, Point
from mainspring.serving.plane.slots import folder, merged, numbers

_WORDS = {
    "queue_full": "the queue was full",
    "shed": "they were shed on purpose",
    "too_late": "it could not have met the deadline",
    "expired": "the deadline passed in the queue",
}


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage of a request, milliseconds: at the baseline's highest load, and now."""

    stage: str
    baseline_ms: float | None
    mean_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """An endpoint's baseline and current numbers; `None` if it was never measured, or no gateway responds."""

    baseline: Baseline | None
    picture: Markup
    workers: int
    live: EndpointNumbers | None
    stages: tuple[StageRow, ...]
    batches: Markup
    outdated: bool  # the baseline belongs to a version that is no longer live

    @property
    def statuses(self) -> list[tuple[str, int]]:
        return sorted((status, int(count)) for status, count in (self.live.requests if self.live else {}).items())

    @property
    def rejections(self) -> list[tuple[str, int]]:
        """Numbers of rejected requests by cause, largest first."""
        found = self.live.rejections if self.live else {}
        return [(_WORDS.get(why, why), int(count)) for why, count in sorted(found.items(), key=lambda one: -one[1])]


def capacity(project: Project, endpoint: str, digests: Mapping[str, float]) -> Capacity:
    """Return the capacity of an endpoint.

    Args:
        digests: Digests of its live bundles.
    """
    kept = project.baselines.newest(endpoint)
    baseline = kept[0] if kept else None
    texts = numbers(folder(project.settings.state))
    found = read_numbers(merged(texts).decode(), endpoint) if texts else None
    live = found if found is not None and found.asked else None
    return Capacity(
        baseline=baseline,
        picture=load_picture(baseline) if baseline else Markup(""),
        workers=len(texts),
        live=live,
        stages=_stages(baseline, live),
        batches=_batches(live.batch_rows) if live else Markup(""),
        outdated=baseline is not None and baseline.digest not in digests,
    )


def _stages(baseline: Baseline | None, live: EndpointNumbers | None) -> tuple[StageRow, ...]:
    before = baseline.stages_us if baseline else {}
    now = live.stages if live else {}
    return tuple(
        StageRow(
            stage,
            before[stage] / 1000 if stage in before else None,
            _thousand(now[stage].mean if stage in now else None),
            _thousand(now[stage].quantile(0.99) if stage in now else None),
        )
        for stage in dict.fromkeys([*before, *now])
    )


def _thousand(value: float | None) -> float | None:
    return None if value is None else value * 1000


def _batches(rows: Distribution) -> Markup:
    bounds = sorted(rows.buckets)
    counts = [rows.buckets[bounds[0]], *(rows.buckets[high] - rows.buckets[low] for low, high in pairwise(bounds))]
    last = max((place for place, count in enumerate(counts) if count), default=-1)
    titles = [f"{_of_rows(bound)}: {count:,.0f} batches" for bound, count in zip(bounds, counts, strict=True)]
    return small_bars([int(count) for count in counts[: last + 1]], titles[: last + 1])


def _of_rows(bound: float) -> str:
    return "more rows" if bound == float("inf") else "1 row" if bound == 1 else f"up to {bound:,.0f} rows"


def load_picture(baseline: Baseline) -> Markup:
    """Return a drawing of p50 and p99 of every measured load; empty if nothing was answered."""
    points = [each for each in baseline.points if each.p50_us and each.p99_us]
    if not points:
        return Markup("")
    loads = [each.offered for each in points]
    values = [each.p50_us or 1.0 for each in points] + [each.p99_us or 1.0 for each in points]
    values.append(float(baseline.deadline_us))
    x, y = scales(loads, values)
    inside = Markup("").join(
        [
            *(across(y(tick), f"{tick / 1000:,g} ms") for tick in y.ticks),
            *(below(x(tick), f"{tick:,g}") for tick in x.ticks),
            level(y(baseline.deadline_us), "deadline"),
            _line("second", [(x(each.offered), y(each.p99_us or 1.0)) for each in points]),
            _line("first", [(x(each.offered), y(each.p50_us or 1.0)) for each in points]),
            *(_dot(each, x, y) for each in points),
        ]
    )
    said = f"p50 and p99 of {len(points)} loads against the deadline; the numbers are in the table below."
    return drawing(inside, said)


def _line(tone: str, places: Sequence[tuple[float, float]]) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return Markup('<polyline class="{}" points="{}"/>').format(tone, path)


def _dot(each: Point, x: Scale, y: Scale) -> Markup:
    told = f"{each.offered:,.0f} requests/s: {each.in_time:.1%} in time"
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.4"><title>{}</title></circle>').format(
        "second" if each.met else "alert", x(each.offered), y(each.p99_us or 1.0), told
    )
