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

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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
