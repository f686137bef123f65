"""Reports of quality: what a person, a page or another program is shown of the sums of a period."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.quality.coverage import UsualCoverage
from mainspring.monitoring.quality.table import Key
from mainspring.stats.estimates import Estimate, estimates
from mainspring.stats.quality_figures import Figure, calibration_curve, figures
from mainspring.stats.quality_sums import BINS, CELLS, Floats, Sums

AGES_SHOWN = {"1h": 3_600, "1d": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
_BLOCKS = 5  # of days; with fewer days, hours are the blocks of an interval


class MeasuredQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one version's predictions of a period, in one segment.

    Attributes:
        segment: Empty for all traffic.
        output: Of several labels, the one measured; else empty.
        coverage: Share of predictions with a label.
        expected_coverage: The share that usually has a label at this age; null if the past is too short to tell.
        repeated: Labelled predictions with more than one label row, of which the newest known counts.
        contradicted: Those whose label rows differ.
        figures: Metric -> value, with a 95% interval.
        by_age: Age -> the same of predictions whose label was known by then.
        held_out: Metric -> value on the version's held-out rows.
        calibration: Mean score and share of positives by group of scores; empty for a regression.
        estimated: Metric -> its estimate before labels, with a 90% interval; of all traffic only.
        invalid: Reason why the estimate does not hold; empty if none is known.
    """

    version: str
    segment: str
    output: str
    predictions: int
    labels: int
    coverage: float
    expected_coverage: float | None
    repeated: int
    contradicted: int
    figures: dict[str, Figure]
    by_age: dict[str, dict[str, Figure]] = {}
    held_out: dict[str, float] = {}
    calibration: list[dict[str, float]] = []
    estimated: dict[str, Estimate] = {}
    invalid: str = ""


def measured(
    sums: Mapping[Key, Sums],
    since: int,
    until: int,
    now: int,
    held_out: Callable[[str], Mapping[str, float]] = lambda _: {},
) -> list[MeasuredQuality]:
    """Return the quality of the predictions made in `[since, until)`: all traffic first, most predictions first.

    Args:
        sums: By `Key`, also of earlier hours, from which the usual label coverage follows.
        now: Time by which labels are included, UTC epoch microseconds.
        held_out: Returns the metrics on held-out rows of the bundle with a digest.
    """
    usual = UsualCoverage.of(sums, since, now)
    groups: dict[tuple[str, str, str], dict[Key, Sums]] = {}
    outputs = {key.output for key in sums if key.output} or {""}
    for key, each in sums.items():
        if since <= key.hour < until:
            for output in outputs if key.age_s == 0 and not key.output else {key.output}:
                groups.setdefault((key.version, key.segment, output), {})[key] = each
    found = [_measured(*name, group, usual, now, held_out) for name, group in groups.items()]
    return sorted(found, key=lambda each: (each.segment, -each.predictions, each.version, each.output))


def estimated(
    sums: Mapping[Key, Sums],
    periods: Sequence[tuple[int, int]],
    now: int,
    horizon_us: int,
    held_out: Callable[[str, str, int], Floats | None] = lambda *_: None,
) -> dict[tuple[str, str, int], dict[str, Estimate]]:
    """Return (version, output, start of a period) -> its estimates, of all traffic.

    Args:
        periods: Start and end of periods of one length, the oldest first.
        now: Time by which labels are included, UTC epoch microseconds.
        horizon_us: Age of predictions at which their labels have come.
        held_out: Returns the sums of a bundle's held-out rows by period: of a digest, an output and a length.
    """
    starts = [start for start, _ in periods]
    found: dict[tuple[str, str, int], dict[str, Estimate]] = {}
    bins: dict[tuple[str, str, str, str], Floats] = {}
    for key, each in sums.items():
        place = bisect_right(starts, key.hour) - 1
        if key.segment or place < 0 or key.hour >= periods[place][1]:
            continue
        group = (key.version, key.digest, key.task, key.output)
        mine = bins.setdefault(group, np.zeros((len(periods), BINS, len(CELLS))))
        mine[place] += each.bins
    ripe = sum(end + horizon_us <= now for _, end in periods)
    for (version, digest, task, output), mine in bins.items():
        length = periods[0][1] - periods[0][0]
        before = held_out(digest, output, length)
        made = estimates(task, mine, ripe, -(-horizon_us // length), held_out=before)
        found |= {(version, output, start): each for start, each in zip(starts, made, strict=True) if each}
    return found


def _measured(
    version: str,
    segment: str,
    output: str,
    group: Mapping[Key, Sums],
    usual: UsualCoverage,
    now: int,
    held_out: Callable[[str], Mapping[str, float]],
) -> MeasuredQuality:
    first = next(iter(group))
    hours: dict[int, float] = {}
    for key, each in group.items():
        hours[key.hour] = hours.get(key.hour, 0.0) + each["predictions"]
    total = sum(group.values(), Sums.nothing())
    aged = {
        name: _figures(first.task, {key: each for key, each in group.items() if 0 < key.age_s <= age})
        for name, age in AGES_SHOWN.items()
    }
    return MeasuredQuality(
        version=version,
        segment=segment,
        output=output,
        predictions=round(total["predictions"]),
        labels=round(total["labels"]),
        coverage=total["labels"] / total["predictions"] if total["predictions"] else 0.0,
        expected_coverage=usual.expected(hours, now),
        repeated=round(total["repeated"]),
        contradicted=round(total["contradicted"]),
        figures=_figures(first.task, group),
        by_age={name: each for name, each in aged.items() if each},
        held_out=dict(held_out(first.digest)),
        calibration=calibration_curve(total.bins) if first.task != "regression" and total.bins[:, 0].any() else [],
    )


def _figures(task: str, group: Mapping[Key, Sums]) -> dict[str, Figure]:
    by_day = _blocks(group.items(), DAY)
    return figures(task, by_day if len(by_day) >= _BLOCKS else _blocks(group.items(), HOUR))


def _blocks(group: Iterable[tuple[Key, Sums]], length: int) -> list[Sums]:
    found: dict[int, Sums] = {}
    for key, each in group:
        if key.age_s:
            place = key.hour // length
            found[place] = found.get(place, Sums.nothing()) + each
    return [found[place] for place in sorted(found)]
