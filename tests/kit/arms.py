"""Streams of randomised requests without any difference between the arms, for simulations of false alarms.

Each generator returns `Stream`s of shape (runs, requests). A look at every request decides nothing that a look at
every event does not: between events a count of events stays. `looks` therefore keeps the events of each run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.stats.sequential.counting import NEVER, LabelState, label_states
from mainspring.stats.sequential.distributions import Bins

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
HOUR = 3_600_000_000
DAY = 24 * HOUR
WEIGHT = 0.3  # the candidate's, in `labelled`


class Stream(NamedTuple):
    """Requests in their order: shape (runs, requests) each."""

    weight: Floats  # probability of the candidate
    candidate: Bools  # whether the candidate was drawn
    event: Bools  # whether an event happened, an error for example


class Looks(NamedTuple):
    """Counts by stratum at each event of each run; shape (runs, events, strata), the last look repeated."""

    weights: Floats  # (strata,)
    candidate: Floats
    control: Floats


def allowed(alpha: float, runs: int) -> float:
    """Return the largest share of false alarms that chance explains: three standard errors above `alpha`."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def _stream(random: np.random.Generator, weight: Floats, rate: Any, worse: float = 1.0) -> Stream:
    candidate = random.random(weight.shape) < weight
    return Stream(weight, candidate, random.random(weight.shape) < np.where(candidate, worse * rate, rate))


def even(random: np.random.Generator, runs: int, requests: int) -> Stream:
    return _stream(random, np.full((runs, requests), 0.05), 0.1)


def rare(random: np.random.Generator, runs: int, requests: int) -> Stream:
    """Draw the candidate for 1 % of requests, and events in 1 %."""
    return _stream(random, np.full((runs, 10 * requests), 0.01), 0.01)


def bursts(random: np.random.Generator, runs: int, requests: int) -> Stream:
    """Draw storms of errors that hit both arms: nearly every request of a storm fails, whichever its arm."""
    began = random.random((runs, requests)) < 0.005
    length = 20
    storm = np.cumsum(began, axis=1) - np.cumsum(np.pad(began, ((0, 0), (length, 0)))[:, :requests], axis=1) > 0
    return _stream(random, np.full((runs, requests), 0.1), np.where(storm, 0.9, 0.01))


def nights(random: np.random.Generator, runs: int, requests: int) -> Stream:
    """Draw a rate that rises and falls tenfold by the hour."""
    hour = 2 * math.pi * np.arange(requests) / 200
    return _stream(random, np.full((runs, requests), 0.2), 0.1 * 10 ** (0.5 * np.sin(hour)))


def steps(random: np.random.Generator, runs: int, requests: int) -> Stream:
    """Draw a canary from 1 % to 50 %, while the rate of both arms rises tenfold: pooled counts are confounded."""
    weight = np.repeat([0.01, 0.05, 0.2, 0.5], requests // 4)
    return _stream(random, np.tile(weight, (runs, 1)), np.repeat([0.02, 0.05, 0.1, 0.2], requests // 4))


STREAMS: dict[str, Callable[[np.random.Generator, int, int], Stream]] = {
    each.__name__: each for each in (even, rare, bursts, nights, steps)
}


def worse(random: np.random.Generator, runs: int, requests: int, *, ratio: float, weight: float, rate: float) -> Stream:
    """Draw a candidate whose events are `ratio` times as frequent."""
    return _stream(random, np.full((runs, requests), weight), rate, ratio)


def looks(stream: Stream) -> Looks:
    """Return the counts at every event, by stratum of equal weight."""
    weights = np.unique(stream.weight)
    most = max(1, int(stream.event.sum(axis=1).max()))
    order = np.argsort(~stream.event, axis=1, kind="stable")[:, :most]
    happened, candidate, weight = (
        np.take_along_axis(each, order, axis=1) for each in (stream.event, stream.candidate, stream.weight)
    )
    of = weight[..., None] == weights
    return Looks(
        weights,
        np.cumsum(of & (happened & candidate)[..., None], axis=1, dtype=np.float64),
        np.cumsum(of & (happened & ~candidate)[..., None], axis=1, dtype=np.float64),
    )


def normal(random: np.random.Generator, stream: Stream) -> Array:
    return random.normal(10, 2, stream.weight.shape)


def pareto(random: np.random.Generator, stream: Stream) -> Array:
    """Draw values without a variance: tail index 1.5."""
    return random.pareto(1.5, stream.weight.shape) + 1


def storms(random: np.random.Generator, stream: Stream) -> Array:
    """Draw values that are high for both arms while the events of the stream are frequent."""
    near = np.apply_along_axis(np.convolve, 1, stream.event.astype(float), np.ones(20) / 20, mode="same")
    return random.lognormal(0, 0.5, stream.weight.shape) * (1 + 5 * near)


VALUES: dict[str, Callable[[np.random.Generator, Stream], Array]] = {
    each.__name__: each for each in (normal, pareto, storms)
}


def history(values: str) -> Array:
    random = np.random.default_rng(1)
    return VALUES[values](random, STREAMS["even"](random, 20, 1_000)).ravel()


def cumulative(stream: Stream, columns: Array, every: int = 1) -> tuple[Array, Array, Array]:
    """Return weights, and sums of each arm at every look by stratum, shape (runs, looks, strata, columns)."""
    weights = np.unique(stream.weight)
    of = stream.weight[..., None] == weights
    arms = [
        np.cumsum((of & arm[..., None])[..., None] * columns[:, :, None, :], axis=1)
        for arm in (stream.candidate, ~stream.candidate)
    ]
    return weights, arms[0][:, every - 1 :: every], arms[1][:, every - 1 :: every]


def one_hot(bins: Bins, values: Array) -> Array:
    return np.eye(len(bins.shares))[bins.of(values)]


def moments(values: Array) -> Array:
    return np.stack([np.ones_like(values), values, values**2], axis=-1)


def counted(weights: Array, at: Array, candidate: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Return the strata and, at each row that counts, the numbers so far in each arm; shape (looks, strata)."""
    strata = np.unique(weights)
    of, candidate = at[counts, None] == strata, candidate[counts, None]
    return strata, np.cumsum(of & candidate, axis=0), np.cumsum(of & ~candidate, axis=0)


class Sticky(NamedTuple):
    """Requests of units that stay in their arm by a hash, a few of which send most requests, and some always fail."""

    units: Array
    weight: Array
    candidate: Array
    failed: Array


def sticky(random: np.random.Generator) -> Sticky:
    users, requests = 400, 1_500
    sends = random.pareto(1.2, users) + 0.1
    units = random.choice(users, requests, p=sends / sends.sum())
    fails = np.where(random.random(users) < 0.1, 0.9, 0.01)
    weight = np.repeat([0.1, 0.3, 0.5], requests // 3)
    return Sticky(units + 1, weight, random.random(users)[units] < weight, random.random(requests) < fails[units])


class Labelled(NamedTuple):
    """Predictions whose label is positive equally often in both arms, and when it becomes known; hourly looks."""

    made: Array
    came: Array
    candidate: Array
    positive: Array


def labelled(random: np.random.Generator, lost: float = 0.0) -> Labelled:
    """Draw labels within a day. The candidate's positive ones come at once; `lost` of its positive ones never."""
    size = 3_000
    made = np.sort(random.integers(0, 72 * HOUR, size))
    candidate = random.random(size) < WEIGHT
    positive = random.random(size) < 0.2
    delay = random.integers(12 * HOUR, DAY, size)
    delay[candidate & positive] = HOUR // 2
    never = random.random(size) < np.where(candidate & positive, lost, 0.05 * ~(candidate & positive))
    return Labelled(made, np.where(never, NEVER, made + delay), candidate, positive)


def looks_at(drawn: Labelled, kind: str) -> tuple[Array, Array]:
    """Return the numbers of positive labels, or of missing ones, in each arm at every hour; shape (looks, 1)."""
    counts = []
    for now in range(HOUR, 110 * HOUR, HOUR):
        if kind == "as they come":
            counts.append((drawn.came <= now) & drawn.positive)
            continue
        states = label_states(drawn.made, np.where(drawn.came <= now, drawn.came, NEVER), now, DAY)
        missing = states == LabelState.MISSING
        counts.append(missing if kind == "missing" else (states == LabelState.KNOWN) & drawn.positive)
    arms = (np.array(counts)[:, None, :] & np.stack([drawn.candidate, ~drawn.candidate])[None]).sum(axis=2)
    return arms[:, :1], arms[:, 1:]
