"""Load that one process of a gateway can serve, by simulation, as a load test would find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, floor, log, log2

import numpy as np

from mainspring.core.time import SECOND
from mainspring.serving.load.capacity import capacity, grew, search
from mainspring.serving.model import Point
from mainspring.serving.simulation.arrivals import Instants
from mainspring.serving.simulation.fleet import Fixed
from mainspring.serving.simulation.model import Endpoint, Simulated
from mainspring.serving.simulation.simulator import simulate

_REQUESTS, _MOST = 3_000, 12_000  # of a load
_SECONDS = 3.0  # of a load, as of a load test: in a shorter one a queue does not grow until requests are late
_CLOSE = 1.04
_LEAST = 1e-3  # requests a second that are served at all


def under(endpoint: Endpoint, rate: float, seed: int = 0) -> Simulated:
    """Return what independent requests at a rate come to in one process."""
    seconds = max(_REQUESTS / rate, min(_SECONDS, _MOST / rate))
    rng = np.random.default_rng(seed)
    instants: Instants = np.sort(rng.integers(0, int(seconds * SECOND), max(1, round(seconds * rate))))
    return simulate(endpoint, instants, Fixed(1), seed=seed)


def highest(endpoint: Endpoint, first: float = 0.0, seed: int = 0) -> float:
    """Return the highest load, requests a second, of which 99 % are answered in time; 0 where none is.

    Args:
        first: Load that is tried first; by default one that leaves no time between requests.
    """

    def tried(rate: float) -> Point:
        found = under(endpoint, rate, seed)
        return Point(
            offered=rate, answered=len(found.latencies_us) / found.seconds, in_time=found.share_in_time,
            refused=found.refused / found.asked, p50_us=found.quantile_us(0.5), p99_us=found.quantile_us(0.99),
            grew=grew(found.latencies_us, found.seconds),
        )  # fmt: skip

    begin = first or SECOND / (endpoint.times.mean(1) + endpoint.overhead_us)
    return capacity(search(tried, first=max(1.0, begin), close=_CLOSE, grow=1.3 if first else 2.0)) or 0.0


def slowed(endpoint: Endpoint, speed: float) -> Endpoint:
    """Return an endpoint on a core that does `speed` times the work."""
    return moved(endpoint, dict.fromkeys(endpoint.times.sizes, speed), speed)


def moved(endpoint: Endpoint, model: Mapping[int, float], speed: float = 1.0) -> Endpoint:
    """Return an endpoint whose model is as many times as fast as `model` says, by the rows of a batch, and the gateway
    beside it `speed` times."""
    return replace(
        endpoint, times=endpoint.times.scaled(model), overhead_us=endpoint.overhead_us / speed,
        batch_us=endpoint.batch_us / speed, idle_share=endpoint.idle_share / speed,
    )  # fmt: skip


class Capacities:
    """Highest loads by a core's speed: searched at powers of two, and between them by interpolation.

    Args:
        factor: By which a load test differs from the simulation.
    """

    def __init__(
        self, endpoint: Endpoint, factor: float = 1.0, find: Callable[[Endpoint, float], float] = highest
    ) -> None:
        self.endpoint, self.factor, self._find = endpoint, factor, find
        self._known: dict[int, float] = {}

    def at(self, speed: float) -> float:
        """Return the highest load of one process on a core that does `speed` times the work of the endpoint's."""
        place = log2(speed)
        low = floor(place + 1e-9)
        below = self._at(low)
        if abs(place - low) < 1e-6 or below <= _LEAST:
            return below * self.factor
        above, share = self._at(low + 1), place - low
        return self.factor * exp(log(below) * (1 - share) + log(max(above, _LEAST)) * share)

    def _at(self, place: int) -> float:
        if place not in self._known:
            near = min(self._known, key=lambda known: abs(known - place), default=place)
            first = 0.95 * self._known.get(near, 0.0) * 2.0 ** (place - near)
            self._known[place] = self._find(slowed(self.endpoint, 2.0**place), first)
        return self._known[place]
