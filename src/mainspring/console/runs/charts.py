"""Charts of metric histories: of one run with its range, or of several runs together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table, spark
from mainspring.core.time import SECOND
from mainspring.registry.run_histories import LARGEST
from mainspring.registry.searching import Axis, Bucket, History, RunSearch

TONES = ("first", "second", "third", "fourth", "fifth")
DASHES = 4  # dash patterns of the stylesheet, including none
POINTS = 160


def looked_at(search: RunSearch, run_ids: Sequence[str], metric: str, points: int = POINTS) -> History | None:
    """Return a metric's history by step, or by time if no steps were logged; None if there is no line."""
    by_step = search.history(run_ids, metric, points=points)
    if any(len(buckets) > 1 for buckets in by_step.runs.values()):
        return by_step
    if not any(bucket.count + bucket.nans > 1 for buckets in by_step.runs.values() for bucket in buckets):
        return None
    by_time = search.history(run_ids, metric, points=points, axis=Axis.TIME)
    return by_time if any(len(buckets) > 1 for buckets in by_time.runs.values()) else None


def one_chart(history: History, run_id: str, id_: str) -> Chart:
    """Return the chart of one run's metric: the mean, and the range if a point combines several values."""
    buckets = {bucket.place: bucket for bucket in history.runs[run_id]}
    places = sorted(buckets)
    spread = any(bucket.count > 1 for bucket in buckets.values())
    lines = [_line(history.metric, buckets, places, "mean", "first")]
    if spread:
        lines = [
            _line("lowest", buckets, places, "low", "outer"),
            *lines,
            _line("highest", buckets, places, "high", "outer"),
        ]
    nans = sum(bucket.nans for bucket in buckets.values())
    return _chart(
        history,
        id_,
        places,
        lines,
        kind="bands" if spread else "lines",
        note=_note(history, spread) + (f"; {nans:,} NaN values left out" if nans else ""),
        table=Table(
            (_place_name(history), *(("Mean", "Lowest", "Highest", "Values") if spread else ("Value",))),
            tuple(_row(history, buckets[place], spread) for place in reversed(places[-500:])),
        ),
    )


def laid_over(history: History, names: Mapping[str, str], id_: str) -> Chart:
    """Return one chart of several runs' metric. `names` are the runs' letters by id, in the order of their colours."""
    places = sorted({bucket.place for buckets in history.runs.values() for bucket in buckets})
    found = {run_id: {bucket.place: bucket for bucket in buckets} for run_id, buckets in history.runs.items()}
    lines = [
        _line(letter, found[run_id], places, "mean", *look(number))
        for number, (run_id, letter) in enumerate(names.items())
        if run_id in found
    ]
    shown = [letter for run_id, letter in names.items() if run_id in found]
    rows = tuple(
        (_said(history, place), *(_mean(found[run_id].get(place)) for run_id in names if run_id in found))
        for place in reversed(places[-500:])
    )
    table = Table((_place_name(history), *shown), rows)
    return _chart(history, id_, places, lines, kind="lines", note=_note(history, spread=False), table=table)


def look(number: int) -> tuple[str, int]:
    """Return the tone and the dash of the n-th run. Twenty look different; later ones are distinguished by their
    letter.
    """
    return TONES[number % len(TONES)], number // len(TONES) % DASHES


def drawable(value: float | None) -> float | None:
    """Return a value that can be drawn: not NaN, and not infinity, which MLflow stores as the largest float."""
    return value if value is not None and math.isfinite(value) and abs(value) < LARGEST else None


def small(values: Sequence[float | None]) -> Markup:
    """Return a sparkline for a table cell; empty if there is no line."""
    finite = list(map(drawable, values))
    known = [value for value in finite if value is not None]
    if len(known) < 2:
        return Markup("")
    low, reach = min(known), max(known) - min(known)
    return spark([None if value is None else (value - low) / reach if reach else 0.5 for value in finite], 1.0)


def _line(name: str, buckets: Mapping[int, Bucket], places: Sequence[int], of: str, tone: str, dash: int = 0) -> Line:
    values = [getattr(buckets[place], of) if place in buckets else None for place in places]
    return Line(name, tuple(map(drawable, values)), tone, dash)


def _chart(history: History, id_: str, places: Sequence[int], lines: Sequence[Line], **more: object) -> Chart:
    known = [value for line in lines for value in line.values if value is not None]
    starts = tuple(map(history.begin, places))
    return Chart(
        id=id_,
        title=history.metric,
        unit="number",
        starts=starts,
        ends=tuple(start + history.width for start in starts),
        lines=tuple(lines),
        from_zero=bool(known) and 0 <= min(known) <= 0.5 * max(known),
        empty="Every value is NaN.",
        pieces="steps" if history.axis is Axis.STEP else "moments",
        axis=history.axis.value,
        most=100.0 if history.metric.endswith("percentage") else None,  # for a process it may exceed 100
        **more,  # type: ignore[arg-type]
    )


def _note(history: History, spread: bool) -> str:
    if history.axis is Axis.TIME:
        return "over time" + (", with the lowest and highest of each moment" if spread else "")
    if history.width > 1:
        return f"by step, {history.width:,} steps a point" + (", with the lowest and highest" if spread else "")
    return "by step"


def _place_name(history: History) -> str:
    return "Step" if history.axis is Axis.STEP else "From"


def _said(history: History, place: int) -> str | Markup:
    at = history.begin(place)
    if history.axis is Axis.TIME:
        return formats.exact(at // SECOND * SECOND) if history.width >= SECOND else formats.exact(at)
    return f"{at:,}" if history.width == 1 else f"{at:,} – {at + history.width - 1:,}"


def _row(history: History, bucket: Bucket, spread: bool) -> tuple[str | Markup, ...]:
    numbers = (bucket.mean, bucket.low, bucket.high) if spread else (bucket.mean,)
    cells = tuple(formats.number(value, 5) for value in numbers)
    return (_said(history, bucket.place), *cells, *((formats.whole(bucket.count),) if spread else ()))


def _mean(bucket: Bucket | None) -> str | Markup:
    return formats.missing("nothing was logged there") if bucket is None else formats.number(bucket.mean, 5)
