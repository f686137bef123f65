"""Segments that are found: bins of the features that matter and pairs of them, on missing values and on the score.

A segment's day is compared with the whole traffic's, and this difference with its own history, as of surprise. So a day
that is unusual everywhere is unusual in no segment. Of the segments that are unusual on one day, the most unusual one
is named for each statistic: a fault in a pair of bins is diluted in its single bins, and one in a single bin has fewer
rows in its pairs. Under an alarm of the whole traffic about the same statistic, its threshold holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mainspring.core.time import DAY
from mainspring.monitoring.channels.budget import thresholds
from mainspring.monitoring.channels.expectation import Dismissed, Unusual, unusual
from mainspring.monitoring.channels.statistics import MEAN, NULLS, Measures, share, transformed
from mainspring.monitoring.channels.surprise import Verdicts
from mainspring.monitoring.channels.windows import WEEK, Floats, Span, Windows, lay_out
from mainspring.monitoring.signals import SURPRISE, Signal
from mainspring.stats.crossings import MEASURES, MISSING, ROWS, SCORE, SQUARES, Depth
from mainspring.stats.sketches import WIDTH

FEWEST_ROWS = 200  # of a segment in a window
_MOST_DAYS = 120
_SENTENCES = {
    MEAN: "The mean score of {segment} is {value:.3g} of training's deviations from training's mean in {rows:,} rows; "
    "{expected:.3g} was expected.",
    NULLS: "{value:.3g}% of the values are missing in {rows:,} rows of {segment}; {expected:.3g}% was expected.",
}


@dataclass(frozen=True, slots=True)
class Sides:
    """Circumstances of a judgement: the endpoint, its score's name, and the budget of found segments.

    Attributes:
        alarms_per_week: False alarms of found segments.
        until: End of the last window, UTC epoch microseconds.
        incidents: Start and end of confirmed incidents, whose windows are no history.
        dismissed: Times of false alarms, with the segments' names as columns.
    """

    endpoint: str
    score: str
    alarms_per_week: float
    until: int
    incidents: Sequence[tuple[int, int]] = ()
    dismissed: Sequence[Dismissed] = ()


@dataclass(frozen=True, eq=False, slots=True)
class _Segments:
    """Segments over days.

    Attributes:
        names: Of each segment; the first is the whole traffic, with an empty name.
        windows: Their starts and history, without columns.
        rows: Shape (windows, segments), as the others.
        missing: Sum over rows of the share of missing values.
        scores: Sum over rows, in training's deviations from training's mean.
        squares: Sum of squares of the same.
    """

    names: tuple[str, ...]
    windows: Windows
    rows: Floats
    missing: Floats
    scores: Floats
    squares: Floats


def in_found_segments(crossed: Mapping[str, Sequence[Span]], whole: Verdicts, sides: Sides) -> list[Signal]:
    """Return the signals of found segments, for each window and statistic of the most unusual one.

    Args:
        crossed: By measure of `stats.crossings`, spans with the sums as pairs.
        whole: Verdicts about the whole traffic, whose threshold holds on days on which it alarms.
    """
    segments = _laid_out(crossed, sides)
    if segments is None:
        return []
    measures = _measured(segments)
    found = unusual(segments.windows, measures, dismissed=sides.dismissed)
    severities = np.where(np.tile(np.isnan(measures.values), 2), np.nan, found.severities)
    largest = np.where(np.isnan(severities), -1.0, severities).max(axis=1, initial=-1.0)
    scores = np.where(largest < 0.0, np.nan, largest)
    of_day = dict(zip(whole.windows.starts.tolist(), whole.windows.part.tolist(), strict=True))
    parts = np.array([of_day.get(start, 1.0) for start in segments.windows.starts.tolist()])
    budget = min(sides.alarms_per_week * DAY / WEEK, 0.5)
    limits = thresholds(scores, segments.windows.usual, budget * parts)
    parents = _parents(whole, sides.score)
    signals = []
    for statistic in (MEAN, NULLS):
        mine = np.where(np.array(found.statistics) == statistic, np.nan_to_num(severities), 0.0)
        for day, start in enumerate(segments.windows.starts.tolist()):
            limit, item = min(parents.get((start, statistic), np.inf), limits[day]), int(mine[day].argmax())
            if mine[day, item] > limit:
                signals.append(_signal(segments, found, day, item, float(mine[day, item] / limit), sides))
    return sorted(signals, key=lambda signal: (signal.start, -signal.severity))


def _parents(whole: Verdicts, score: str) -> dict[tuple[int, str], float]:
    """Return the thresholds of the windows in which the whole traffic's score, or missing values, raise an alarm."""
    over = np.nan_to_num(whole.unusual.severities) > whole.thresholds[:, None]
    of_score = np.array([column == score for column in whole.unusual.columns], bool)
    of_nulls = np.array([name == NULLS for name in whole.unusual.statistics], bool)
    return {
        (int(whole.windows.starts[day]), statistic): float(whole.thresholds[day])
        for statistic, of in ((MEAN, of_score), (NULLS, of_nulls))
        for day in np.flatnonzero((over & of).any(axis=1)).tolist()
    }


def _laid_out(crossed: Mapping[str, Sequence[Span]], sides: Sides) -> _Segments | None:
    pairs = [(span, span.pairs) for span in crossed.get(ROWS, ()) if span.pairs is not None]
    if not pairs or any(measure not in crossed for measure in MEASURES):
        return None
    bins = pairs[-1][1].columns
    windows = lay_out(
        [span for span, _ in pairs], (), until=sides.until // DAY * DAY, incidents=sides.incidents, most=_MOST_DAYS
    )
    if not len(windows):
        return None
    rows, columns, names = Depth.of(bins)
    sums = {measure: np.zeros((len(windows), len(names))) for measure in MEASURES}
    first, last = int(windows.starts[0]), int(windows.starts[-1])
    for measure, spans in crossed.items():
        for span in spans:
            start = span.start // DAY * DAY
            if span.pairs is not None and span.pairs.columns == bins and first <= start <= last:
                sums[measure][(start - first) // DAY] += span.pairs.products[rows, columns]
    usual = sums[ROWS][:, 0] > 0
    for start, end in sides.incidents:
        usual &= ~((windows.starts < end) & (windows.starts + DAY > start))
    windows = replace(windows, usual=usual, steady=usual)
    return _Segments(names, windows, sums[ROWS], sums[MISSING], sums[SCORE], sums[SQUARES])


def _measured(segments: _Segments) -> Measures:
    """Return how far each segment's share of missing values and mean score are from the whole traffic's."""
    rows = np.maximum(segments.rows, 1.0)
    mean = segments.scores / rows
    variance = np.maximum(segments.squares / rows - mean**2, 0.0)
    missing = transformed(segments.missing, segments.rows)
    few = segments.rows < FEWEST_ROWS
    few[:, 0] = True  # the whole traffic is compared with itself
    values = [np.where(few, np.nan, each - each[:, :1]) for each in (mean, missing)]
    errors = [np.sqrt((variance + 0.02) / rows), 1.0 / np.sqrt(rows)]
    count = len(segments.names)
    return Measures(
        segments.names * 2,
        (MEAN,) * count + (NULLS,) * count,
        np.concatenate(values, axis=1),
        np.concatenate(errors, axis=1),
        np.zeros((len(segments.windows), 0, WIDTH)),
    )


def _signal(segments: _Segments, found: Unusual, day: int, item: int, severity: float, sides: Sides) -> Signal:
    statistic, place = found.statistics[item], item % len(segments.names)
    rows = max(float(segments.rows[day, place]), 1.0)
    difference = float(found.expected[day, item])
    if statistic == MEAN:
        value = float(segments.scores[day, place]) / rows
        expected = difference + float(segments.scores[day, 0]) / max(float(segments.rows[day, 0]), 1.0)
        shown = value, expected
    else:
        value = float(segments.missing[day, place]) / rows
        expected = share(difference + float(transformed(segments.missing[day, 0], segments.rows[day, 0])))
        shown = 100.0 * value, 100.0 * expected
    start = int(segments.windows.starts[day])
    return Signal(
        channel=SURPRISE,
        endpoint=sides.endpoint,
        statistic=statistic,
        start=start,
        end=start + DAY,
        severity=severity,
        segment=segments.names[place],
        column=sides.score if statistic == MEAN else "",
        value=value,
        expected=expected,
        detail=_SENTENCES[statistic].format(
            segment=segments.names[place], value=shown[0], expected=shown[1], rows=int(rows)
        ),
    )
