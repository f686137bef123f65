"""Forecast of a month's spending from days, with a prediction interval.

A day costs the mean of its kind, weekday or weekend, plus a deviation that remembers the day before: regression on the
kind of day with errors of an autoregressive process of order one (Hyndman and Athanasopoulos, Forecasting: Principles
and Practice, 3rd edition, chapters 5.5 and 10; the coefficient is corrected for its bias in short series by Kendall,
Biometrika 41, 1954). The interval of the sum of the days to come has the variance of their deviations and of the means
that were estimated, and a quantile of Student's t with the effective number of days.

Costs that grow or fall steadily, and one of a size that was never seen, are outside what it assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt

import msgspec

from mainspring.core.time import DAY
from mainspring.stats.distributions import student_quantile

FEWEST_DAYS = 7
MOST_DAYS = 56  # of history: eight weeks
COVERED = 0.9  # share of months whose end is within the interval
_MOST_MEMORY = 0.9  # of the deviations
_CAUTION = 2.0  # added, over the number of days: too little memory would make the interval too narrow
_WEEKENDS_FROM = 14  # days of history


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Spending at the end of a month, in billionths of the currency.

    Attributes:
        low, high: Bounds within which nine months of ten end.
        days: Complete days that it is from.
    """

    expected: int
    low: int
    high: int
    days: int


def forecast(days: Mapping[int, int], begin: int, end: int, now: int) -> Forecast | None:
    """Return the forecast of what is spent in `[begin, end)`; `None` with too few complete days.

    Args:
        days: Start of a day (UTC) -> its spending in billionths, of past months too. A day between that is missing cost
            nothing; so do none of the days before the first.
        now: In the month; the day that it is in is not complete.
    """
    today = now // DAY * DAY
    spent = sum(amount for day, amount in days.items() if begin <= day < end and day <= now)
    if now >= end:
        return Forecast(expected=spent, low=spent, high=spent, days=(end - begin) // DAY)
    first = max(min(days, default=today), today - MOST_DAYS * DAY)
    history = [float(days.get(day, 0)) for day in range(first, today, DAY)]
    if len(history) < FEWEST_DAYS:
        return None
    begun = min(1.0, (now - today) / DAY)
    ahead = [(today, 1.0 - begun), *((day, 1.0) for day in range(today + DAY, end, DAY))]
    mean, spread = _ahead(history, first, ahead)
    low, high = (spent + round(max(0.0, mean + sign * spread)) for sign in (-1, 1))
    return Forecast(expected=spent + round(max(0.0, mean)), low=low, high=high, days=len(history))


def _ahead(history: Sequence[float], first: int, ahead: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the expected sum of the days ahead, given as start and share, and half the width of its interval."""
    count = len(history)
    kinds = [_is_weekend(first + place * DAY) if count >= _WEEKENDS_FROM else False for place in range(count)]
    means = {kind: _mean([each for each, of in zip(history, kinds, strict=True) if of == kind]) for kind in set(kinds)}
    errors = [each - means[kind] for each, kind in zip(history, kinds, strict=True)]
    memory = _memory(errors)
    effective = count * (1 - memory) / (1 + memory)
    freedom = max(2, round(effective - len(means)))
    variance = sum(each * each for each in errors) / max(1.0, count - len(means) * (1 + memory) / (1 - memory))
    known = {kind: kinds.count(kind) for kind in means}
    mean, last = 0.0, errors[-1]
    weights: dict[bool, float] = dict.fromkeys(means, 0.0)
    for step, (day, share) in enumerate(ahead, 1):
        kind = _is_weekend(day) if len(means) == 2 else next(iter(means))
        weights[kind] += share
        mean += share * (means[kind] + last * memory**step)
    shares = [share for _, share in ahead]
    to_come = variance * _of_sum(shares, memory)
    estimated = variance * (1 + memory) / (1 - memory) * sum(weights[kind] ** 2 / known[kind] for kind in means)
    return mean, student_quantile(0.5 + COVERED / 2, freedom) * sqrt(to_come + estimated)


def _memory(errors: Sequence[float]) -> float:
    """Return the autoregressive coefficient, between 0 and `_MOST_MEMORY`."""
    whole = sum(each * each for each in errors)
    if not whole:
        return 0.0
    found = sum(one * two for one, two in pairwise(errors)) / whole
    return min(_MOST_MEMORY, max(0.0, found + (1 + 3 * found + _CAUTION) / len(errors)))


def _of_sum(shares: Sequence[float], memory: float) -> float:
    """Return the variance of the weighted sum of the next deviations, given the last one, in units of a day's."""
    # An innovation counts on its day, and by what the days after it keep of it.
    innovation, whole, carried = 1 - memory * memory, 0.0, 0.0
    for share in reversed(shares):
        carried = share + memory * carried
        whole += carried * carried * innovation
    return whole


def _is_weekend(day: int) -> bool:
    return (day // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
