"""Simulated rollouts: how probably, how soon, and at what cost a plan finds a difference of a given size.

Each run draws the counts of a whole plan: requests by the hour of the week, the candidate's share by the step, and what
each arm shows. The tests are those of the real rollout, so what is foreseen is what they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.distributions import Bins
from mainspring.stats.sequential.events import Floats
from mainspring.stats.sequential.means import Bounds
from mainspring.stats.sequential.verdicts import Verdicts, of_errors, of_latency, of_means, of_scores

WEEK = 168  # hours
_AT_ONCE = 4  # runs
_SOONEST = 1e-4  # first look, as a share of the whole course: a minute of a week

_Ints = npt.NDArray[np.int64]


class Step(msgspec.Struct, frozen=True):
    """Candidate's share for some hours."""

    weight: float
    hours: float


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Plan and traffic of simulated rollouts.

    Attributes:
        requests_an_hour: One number, or 168 by hour of the week, Monday first.
        starts: Hour of the week of the start.
        alpha: Error rate of this guard, its share of the plan's; success is tested at `alpha_fine`.
        delay_hours: Age at which a request counts, as with labels.
        counted: Share of requests that count, as those with a label.
        runs: Simulated rollouts; the error of a share is at most 0.5 / sqrt(runs).
        looks: Looks of a run: half are evenly spread, half are denser at the start, where a bad candidate is found. A
            real rollout has more, and finds a difference a little sooner.
    """

    steps: tuple[Step, ...]
    requests_an_hour: float | tuple[float, ...]
    starts: float = 0.0
    alpha: float = 0.05
    alpha_fine: float = 0.05
    delay_hours: float = 0.0
    counted: float = 1.0
    runs: int = 400
    looks: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        hourly = np.atleast_1d(np.asarray(self.requests_an_hour, dtype=np.float64))
        if hourly.size not in (1, WEEK) or not ((hourly >= 0) & np.isfinite(hourly)).all():
            raise Invalid(
                f"The requests of {hourly.size} hours are not those of a week.", fix=f"give one number, or {WEEK}."
            )
        if not self.steps or not all(0 < each.weight < 1 and 0 < each.hours < math.inf for each in self.steps):
            raise Invalid("A step needs a weight between 0 and 1 and some hours.")
        if not (0 < self.alpha < 1 and 0 < self.alpha_fine < 1 and self.runs > 0 and self.looks > 0):
            raise Invalid(f"{self.runs} runs of {self.looks} looks at alpha {self.alpha} tell nothing.")

    @property
    def hours(self) -> float:
        return sum(each.hours for each in self.steps)


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of the simulated rollouts of a candidate with one true effect.

    Attributes:
        breached, cleared: Share of rollouts that find it worse than tolerated, and no worse.
        median_hours, late_hours: Time until either, for half and for nine tenths of all rollouts; `None` if it is
            longer than the plan.
        met: Share of the plan's requests that the candidate answers until either, or until the plan ends.
    """

    effect: float
    breached: float
    cleared: float
    median_hours: float | None
    late_hours: float | None
    met: float


def foresee_events(
    course: Course, rate: float, effects: Sequence[float], tolerance: float = 1.0, *, at_most: float = 0.0
) -> list[Outlook]:
    """Return what happens if the candidate's share of events is each of `effects` times `rate`.

    Args:
        rate: The control's share of events.
        effects: True relative risks; 1 means no difference.
        tolerance: The relative risk that is tolerated.
        at_most: Share of events that is tolerated whatever the control's is; 0 for none.

    Raises:
        Invalid: A share of events is not a probability.
    """
    _shares([rate, *(rate * effect for effect in effects)])

    def judge(random: np.random.Generator, candidate: _Ints, control: _Ints, by: _Strata, effect: float) -> Verdicts:
        def verdicts(mine: _Ints, its: _Ints, asked: _Ints) -> Verdicts:
            return of_errors(by.weights, by.of(mine), by.of(its), np.cumsum(asked, axis=1), tolerance, at_most)

        return _judged(verdicts, random.binomial(candidate, rate * effect), random.binomial(control, rate), candidate)

    return _simulated(course, effects, judge)


def foresee_latency(
    course: Course, bins: Bins, history: npt.ArrayLike, effects: Sequence[float], factor: float
) -> list[Outlook]:
    """Return what happens if the candidate's latency is each of `effects` times the control's.

    Args:
        bins: Of the guard, from the history.
        history: The control's latencies.
        factor: How many times as slow the candidate may be.
    """
    values = np.asarray(history, dtype=np.float64)

    def judge(random: np.random.Generator, candidate: _Ints, control: _Ints, by: _Strata, effect: float) -> Verdicts:
        drawn = [
            random.multinomial(number, np.bincount(bins.of(values * times), minlength=len(bins.shares)) / values.size)
            for number, times in ((candidate, effect / factor), (control, 1.0))
        ]
        return _judged(lambda mine, its: of_latency(bins, by.weights, by.of(mine), by.of(its)), *drawn)

    return _simulated(course, effects, judge)


def foresee_scores(
    course: Course, edges: Sequence[float], history: npt.ArrayLike, effects: Sequence[float], tolerance: float
) -> list[Outlook]:
    """Return what happens if the candidate's scores are higher by each of `effects` of their standard deviation.

    Args:
        edges: Inner edges of the guard's bins, from the history.
        history: The control's scores.
        tolerance: The relative share of a bin that is tolerated.
    """
    values = np.asarray(history, dtype=np.float64)

    def shares(moved: Floats) -> Floats:
        return np.bincount(np.searchsorted(edges, moved, side="right"), minlength=len(edges) + 1) / values.size

    def judge(random: np.random.Generator, candidate: _Ints, control: _Ints, by: _Strata, effect: float) -> Verdicts:
        moved = random.multinomial(candidate, shares(values + effect * values.std()))
        drawn = moved, random.multinomial(control, shares(values))
        return _judged(lambda mine, its: of_scores(by.weights, by.of(mine), by.of(its), tolerance), *drawn)

    return _simulated(course, effects, judge)


def foresee_means(
    course: Course, bounds: Bounds, history: npt.ArrayLike, effects: Sequence[float], tolerance: float = 0.0
) -> list[Outlook]:
    """Return what happens if the candidate's mean is larger by each effect; a smaller mean is better.

    Args:
        history: The control's values.
        effects: Differences of means within the bounds. The candidate's values are the control's in other proportions.
        tolerance: How much larger the candidate's mean may be.

    Raises:
        Invalid: No proportions of the values have so large, or small, a mean.
    """
    usual = bounds.cells(history).mean(axis=0)

    def judge(random: np.random.Generator, candidate: _Ints, control: _Ints, by: _Strata, effect: float) -> Verdicts:
        worse = tilted(bounds.nodes, usual, float(usual @ bounds.nodes) + effect)
        drawn = random.multinomial(candidate, worse), random.multinomial(control, usual)
        return _judged(lambda mine, its: of_means(bounds, by.weights, by.of(mine), by.of(its), tolerance), *drawn)

    return _simulated(course, effects, judge)


def tilted(values: Floats, shares: Floats, mean: float) -> Floats:
    """Return the shares with this mean that are nearest to `shares`: shares times exp(tilt * value).

    Raises:
        Invalid: The mean is outside of the values that have a share.
    """
    inside = values[shares > 0]
    if not inside.min() < mean < inside.max():
        raise Invalid(f"Values from {inside.min():.4g} to {inside.max():.4g} cannot have the mean {mean:.4g}.")
    scaled = (values - inside.min()) / (inside.max() - inside.min())

    def at(tilt: float) -> Floats:
        made = shares * np.exp(tilt * scaled - max(tilt, 0.0))
        return np.asarray(made / made.sum())

    low, high = -1e3, 1e3
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) @ values < mean else (low, middle)
    return at(high)


def smallest_effect(
    foresee: Callable[[float], Outlook], low: float, high: float, power: float = 0.8, tried: Sequence[float] = ()
) -> float | None:
    """Return the smallest effect that a rollout finds to be a breach with probability `power`, to a twentieth.

    Args:
        foresee: Outlook of an effect, such as `lambda effect: foresee_events(course, 0.01, [effect])[0]`.
        low, high: Positive effects, the first too small.
        tried: Ascending effects whose outlook `foresee` remembers: the search starts between two of them.

    Returns:
        `None` if also `high` is found less often.
    """
    for effect in tried:
        if low < effect < high:
            low, high = (low, effect) if foresee(effect).breached >= power else (effect, high)
    if foresee(high).breached < power:
        return None
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if foresee(middle).breached >= power else (middle, high)
    return high


class _Strata:
    """Looks of a course, by step."""

    def __init__(self, course: Course) -> None:
        ends = np.cumsum([each.hours for each in course.steps])
        early, even = course.looks // 2, course.looks - course.looks // 2
        self.hours = np.unique(
            np.concatenate(
                [
                    np.geomspace(_SOONEST, 1, early, endpoint=False) * course.hours,
                    np.linspace(0, course.hours, even + 1)[1:],
                    ends,
                ]
            )
        )
        begin = np.concatenate([[0.0], self.hours[:-1]])
        step = np.searchsorted(ends, (begin + self.hours) / 2)
        self.weight = np.array([each.weight for each in course.steps])[step]
        self.weights = np.unique(self.weight)
        self._place = self.weight[:, None] == self.weights
        hourly = np.resize(np.atleast_1d(np.asarray(course.requests_an_hour, dtype=np.float64)), WEEK)
        done = np.concatenate([[0.0], np.cumsum(hourly)])

        def until(hour: npt.NDArray[np.float64]) -> Floats:
            weeks, rest = np.divmod(hour + course.starts, WEEK)
            return np.asarray(weeks * done[-1] + np.interp(rest, np.arange(WEEK + 1), done))

        self.requests = np.maximum(until(self.hours) - until(begin), 0.0)

    def of(self, counts: npt.NDArray[np.int64] | Floats) -> Floats:
        """Return cumulative counts by stratum: (runs, looks, ...) becomes (runs, looks, strata, ...)."""
        extra = (1,) * (counts.ndim - 2)
        place = self._place.reshape(1, *self._place.shape, *extra)
        return np.cumsum(counts[:, :, None] * place, axis=1, dtype=np.float64)


_Judge = Callable[[np.random.Generator, _Ints, _Ints, _Strata, float], Verdicts]


def _simulated(course: Course, effects: Sequence[float], judge: _Judge) -> list[Outlook]:
    by, limits = _Strata(course), (math.log(1 / course.alpha), math.log(1 / course.alpha_fine))
    found = []
    for effect in effects:
        random = np.random.default_rng(course.seed)
        requests = random.poisson(by.requests, (course.runs, by.hours.size))
        candidate = random.binomial(requests, by.weight)
        counted = [random.binomial(each, course.counted) for each in (candidate, requests - candidate)]
        worse, fine = judge(random, counted[0], counted[1], by, effect)
        breach, clear = _first(worse >= limits[0]), _first(fine >= limits[1])
        found.append(_outlook(course, effect, by, np.stack([breach, clear]), candidate))
    return found


def _judged(verdicts: Callable[..., Verdicts], *counts: _Ints) -> Verdicts:
    """Return the verdicts of all runs, from a few runs at a time: those stay in the processor's cache."""
    parts = [
        verdicts(*(each[first : first + _AT_ONCE] for each in counts)) for first in range(0, len(counts[0]), _AT_ONCE)
    ]
    return Verdicts(*map(np.concatenate, zip(*parts, strict=True)))


def _outlook(course: Course, effect: float, by: _Strata, first: _Ints, candidate: _Ints) -> Outlook:
    """Return the outlook from the first looks at which each run is breached, and cleared; shape (2, runs)."""
    # A look at labels is made when they have come, unless the plan has ended by then.
    when = np.append(by.hours, math.inf)[first] + course.delay_hours
    when[when > course.hours] = math.inf
    breach, clear = when
    hours = when.min(axis=0)
    looks = np.minimum(np.searchsorted(by.hours, hours), by.hours.size - 1)
    met = np.cumsum(candidate, axis=1)[np.arange(course.runs), looks]

    def within(share: float) -> float | None:
        quantile = float(np.quantile(hours, share, method="inverted_cdf"))
        return quantile if math.isfinite(quantile) else None

    return Outlook(
        effect=effect,
        breached=float(((breach <= clear) & np.isfinite(breach)).mean()),
        cleared=float((clear < breach).mean()),
        median_hours=within(0.5),
        late_hours=within(0.9),
        met=float(met.mean() / max(1.0, float(by.requests.sum()))),
    )


def _first(reached: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the first look at which each run is true; the number of looks if none is."""
    return np.asarray(np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1]))


def _shares(rates: Sequence[float]) -> None:
    wrong = [rate for rate in rates if not 0 <= rate <= 1]
    if wrong:
        raise Invalid(f"A share of events of {wrong[0]} is not a probability.", fix="give a smaller rate or effect.")
