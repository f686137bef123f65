"""The channel of silence: predictions that do not come, labels that do not come, a monitor that does not run.

Pure functions of windows and of the record of the monitor's parts, whose windows are by the machine's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import sqrt
from statistics import median
from typing import NamedTuple

from mainspring.core.time import DAY, HOUR, MINUTE, WEEK
from mainspring.monitoring.incidents.causes import LABELS, MONITOR, PREDICTIONS
from mainspring.monitoring.incidents.model import Judged, Part, scope
from mainspring.monitoring.model import Window
from mainspring.monitoring.signals import SILENCE, Signal

_MISSED = 7.0  # expected predictions whose absence is no chance: a Poisson count of mean 7 is 0 once in a thousand
_WEEKS = 4  # of which the same window tells how much is usual
_DAYS = 7  # before it, that tell it where no weeks do
_FEWEST = 2  # of them
_LONGEST = 28  # windows of silence, after which it is the usual
_LEAST_COVERED = 20  # predictions of a window whose coverage is compared
_LAGS = 3.0  # times the usual lag of labels after which a window's labels should be there
_SIGMAS = 4.0
_MOST_MINUTES = 100


class Traffic(NamedTuple):
    """Number of predictions in a window."""

    start: int
    end: int
    predictions: int


def missing_predictions(endpoint: str, windows: Sequence[Traffic]) -> Judged:
    """Return a signal for each window without predictions in which they are usual.

    The usual number is the median of the same window in the last four weeks. Where there are no two of them it is the
    least of the same window on the last seven days, so that a night or a weekend is no silence. A silence is a signal
    once so many predictions are missing that it is no chance.

    Args:
        windows: Complete ones of one length, the oldest first.
    """
    known = {each.start: each.predictions for each in windows}
    signals, judged = [], []
    missed, begun, told = 0.0, 0, 0
    for number, window in enumerate(windows):
        if window.predictions:
            judged.append((window.start, window.end))
            missed, begun, told = 0.0, number + 1, 0
            continue
        usual = _usual(known, window, windows[begun].start)
        missed += usual
        told += usual > 0 and missed >= _MISSED
        if usual and missed >= _MISSED and told <= _LONGEST:
            hours = (window.end - windows[begun].start) / HOUR
            detail = f"{endpoint} has had no predictions for {hours:,.0f} hours; {missed:,.0f} are usual."
            signals.append(
                Signal(
                    channel=SILENCE, endpoint=endpoint, statistic=PREDICTIONS, start=window.start, end=window.end,
                    severity=missed / _MISSED, value=0.0, expected=usual, page=True, detail=detail,
                )
            )  # fmt: skip
            judged.append((window.start, window.end))
    return Judged(endpoint, scope(SILENCE, PREDICTIONS, ""), tuple(judged), tuple(signals))


def _usual(known: Mapping[int, int], window: Traffic, begun: int) -> float:
    """Return the usual number of predictions of a window in a silence that began at an instant, by those before it."""

    def earlier(step: int, count: int) -> list[int]:
        first = max(1, (window.start - begun) // step + 1)
        places = (window.start - number * step for number in range(first, first + count))
        return [known[place] for place in places if place in known]

    weeks = earlier(WEEK, _WEEKS)
    if len(weeks) >= _FEWEST:
        return float(median(weeks))
    days = earlier(max(DAY, window.end - window.start), _DAYS)
    return float(min(days)) if len(days) == _DAYS else 0.0


def missing_labels(endpoint: str, windows: Sequence[Window], now: int, matures_us: int = 0) -> Judged:
    """Return a signal for each window that has far fewer labels than earlier ones had in the end.

    A window is compared once its labels have matured, and three times their usual lag has passed.
    """
    large = [each for each in windows if each.end <= now and each.predictions >= _LEAST_COVERED]
    signals, judged = [], []
    for number, window in enumerate(large):
        before = large[max(0, number - _LONGEST) : number]
        lags = [each.lag_p50_s for each in before if each.lag_p50_s is not None]
        if len(before) <= _FEWEST or not lags:
            continue
        usual = float(median(each.coverage for each in before))
        if now - window.end < max(matures_us, _LAGS * median(lags) * 1e6) or not usual:
            continue
        judged.append((window.start, window.end))
        expected = usual * window.predictions
        if window.labels < expected / 2 and expected - window.labels > _SIGMAS * sqrt(
            expected * (1 - min(usual, 1)) + 1
        ):
            signals.append(
                Signal(
                    channel=SILENCE, endpoint=endpoint, statistic=LABELS, start=window.start, end=window.end,
                    severity=2 * (expected - window.labels) / expected, value=window.coverage, expected=usual,
                    detail=f"{window.coverage:.0%} of the predictions of {endpoint} have a label, usually {usual:.0%}.",
                )
            )  # fmt: skip
    return Judged(endpoint, scope(SILENCE, LABELS, ""), tuple(judged), tuple(signals))


def monitor_silences(before: Sequence[Part], after: Sequence[Part], window_us: int) -> list[Judged]:
    """Return a signal for each part of the monitor that failed, and for each endpoint that was not watched for long.

    Args:
        before: The record before this pass.
        after: The parts that ran in this pass.
        window_us: Length of the endpoint's windows: two of them without a pass are a silence.
    """
    known = {(each.endpoint, each.part): each for each in before}
    found = []
    for part in after:
        old = known.get((part.endpoint, part.part))
        scoped = scope(SILENCE, MONITOR, part.part)
        if part.since is not None:
            found.append(Judged(part.endpoint, scoped, _minutes(part.since, part.ran_at)))
            continue
        begun = part.ran_at - 1 if old is None else min(old.ran_at, part.ran_at - 1)
        found.append(_own(part, part.part, begun, f"The monitor's part {part.part!r} failed: {part.error}"))
    for endpoint in sorted({each.endpoint for each in after}):
        ran = max((each.ran_at for each in before if each.endpoint == endpoint), default=None)
        newest = max((each for each in after if each.endpoint == endpoint), key=lambda each: each.ran_at)
        gap = 0 if ran is None else newest.ran_at - ran
        if ran is not None and gap > 2 * window_us:
            words = f"The monitor did not look at {endpoint or 'the installation'} for {gap / 3.6e9:,.1f} hours."
            found.append(_own(newest, "", ran, words))
        else:
            since = min(each.since or each.ran_at for each in after if each.endpoint == endpoint)
            found.append(Judged(endpoint, scope(SILENCE, MONITOR, ""), _minutes(since, newest.ran_at)))
    return found


def _own(part: Part, name: str, start: int, detail: str) -> Judged:
    signal = Signal(
        channel=SILENCE, endpoint=part.endpoint, statistic=MONITOR, column=name, start=start, end=part.ran_at,
        severity=1.0, detail=detail,
    )  # fmt: skip
    return Judged(part.endpoint, scope(SILENCE, MONITOR, name), (), (signal,))


def _minutes(since: int, until: int) -> tuple[tuple[int, int], ...]:
    """Return the newest whole minutes of an interval, as windows in which the monitor worked."""
    first = max(since, until - _MOST_MINUTES * MINUTE)
    return tuple((at, at + MINUTE) for at in range(first, until - MINUTE + 1, MINUTE))


def quiet_endpoints(parts: Sequence[Part], endpoints: Collection[str], now: int, limit_us: int) -> dict[str, int]:
    """Return the endpoints that no pass has looked at for longer than the limit, with the time since the last one."""
    ran = {name: max((each.ran_at for each in parts if each.endpoint == name), default=None) for name in endpoints}
    return {name: now - at for name, at in ran.items() if at is not None and now - at > limit_us}
