"""Time that a gateway's process takes for a request beside its model: more if it did nothing for a while before.

A processor that was idle wakes late, has cold caches, and may be at work for others. What requests of a low rate take
beyond those of a busy process is measured, and drawn by how long the process had been idle. Pauses of the process are
among it: requests that come by chance meet as many of them as there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

_Floats = npt.NDArray[np.float64]
_LEAST = 30  # requests of a class of idle times
_ROUNDS = 30
_EDGES = np.sqrt(10.0) ** np.arange(4, 15)  # µs: 100 µs to 3 s, two a decade


def after_idle(due_us: npt.ArrayLike, latencies_us: npt.ArrayLike, each_us: float = 0.0) -> tuple[_Floats, _Floats]:
    """Return the requests that came while no other was there: how long none had been, and their latencies, µs.

    Args:
        due_us: When each request came.
        each_us: Time of one more request that is answered together with another. Of a latency the time of those is left
            out that came until its request was answered, and were answered with it: they wait for their own sake.
    """
    due, latencies = np.asarray(due_us, float), np.asarray(latencies_us, float)
    order = np.argsort(due, kind="stable")
    due, latencies = due[order], latencies[order]
    free = np.maximum.accumulate(due + latencies)
    gaps = due[1:] - free[:-1]
    alone = np.flatnonzero(gaps >= 0)
    came = np.searchsorted(due, (due + latencies)[1:][alone])
    apart = np.flatnonzero(np.append(np.diff(due + latencies) >= each_us / 2, True))  # from the one before
    together = np.minimum(came, apart[np.searchsorted(apart, alone + 1)] + 1) - alone - 2
    return gaps[alone], latencies[1:][alone] - each_us * np.maximum(together, 0)


def during_work(due_us: npt.ArrayLike, latencies_us: npt.ArrayLike) -> _Floats:
    """Return how long after the one before each request was answered that came while another was there, µs."""
    due, latencies = np.asarray(due_us, float), np.asarray(latencies_us, float)
    order = np.argsort(due, kind="stable")
    done = due[order] + latencies[order]
    free = np.maximum.accumulate(done)[:-1]
    busy = due[order][1:] < free
    found: _Floats = np.maximum(0.0, done[1:] - free)[busy]
    return found


@dataclass(frozen=True, slots=True)
class Woken:
    """Requests of one rate.

    Attributes:
        gaps_us: How long the process had been idle, of those that came then; `latencies_us`: of these.
        processor_us: Processor time of a request, beyond one that comes to a busy process: mean of all of that rate.
        asked: Number of all of that rate.
        busy_us: Times of those that came to a process at work, from the answer before theirs.
    """

    gaps_us: _Floats
    latencies_us: _Floats
    processor_us: float
    asked: int
    busy_us: _Floats = field(default_factory=lambda: np.zeros(0))


class Waking:
    """Extra time of requests after an idle time.

    Args:
        found: Requests of several rates.
        usual: Chance -> latency, µs, of a request alone that comes right after another.
        outside_us: What of that is spent outside the process.

    Raises:
        Invalid: There is no request.
    """

    def __init__(self, found: Sequence[Woken], usual: Callable[[float], float], outside_us: float = 0.0) -> None:
        gaps = np.concatenate([each.gaps_us for each in found]) if found else np.zeros(0)
        latencies = np.concatenate([each.latencies_us for each in found]) if found else np.zeros(0)
        if not len(gaps):
            raise Invalid("No request came to an idle process.", fix="measure at a lower rate.")
        order = np.argsort(gaps, kind="stable")
        gaps, latencies = gaps[order], latencies[order]
        cuts = _cuts(gaps)
        self._edges = [float(gaps[cut]) for cut in cuts[1:-1]]
        classes = [slice(first, last) for first, last in pairwise(cuts)]
        self._extras = [_beyond(np.sort(latencies[each]), usual) for each in classes]
        self._middles = [float(np.median(gaps[each])) for each in classes]
        busy = np.sort(np.concatenate([each.busy_us for each in found]))
        self._busy = _above(busy, usual, outside_us) if len(busy) >= _LEAST else []
        costs = _costs(found, gaps)
        self._processor = [float(costs[each].mean()) for each in classes]

    @property
    def medians(self) -> list[tuple[float, float]]:
        """Idle times, and the median extra time after them, µs."""
        return [(gap, extras[len(extras) // 2]) for gap, extras in zip(self._middles, self._extras, strict=True)]

    def draw_busy(self, chance: float) -> float:
        """Return the extra time of a request that comes to a process at work, µs: it may have to give way to others."""
        return self._busy[int(chance * len(self._busy))] if self._busy else 0.0

    def draw(self, gap_us: float, chance: float) -> tuple[float, float]:
        """Return the extra time, and the extra processor time, of a request after an idle time, µs.

        Args:
            chance: Of a uniform distribution over `[0, 1)`.
        """
        place = bisect_right(self._edges, gap_us)
        extras = self._extras[place]
        return extras[int(chance * len(extras))], self._processor[place]


def _cuts(gaps: _Floats) -> list[int]:
    """Return where classes of sorted idle times begin and end, each with enough requests."""
    cuts = [0]
    for cut in np.searchsorted(gaps, _EDGES):
        if cut - cuts[-1] >= _LEAST and len(gaps) - cut >= _LEAST:
            cuts.append(int(cut))
    return [*cuts, len(gaps)]


def _costs(found: Sequence[Woken], gaps: _Floats) -> _Floats:
    """Return the extra processor time after each of idle times, such that each rate has in the mean what it had.

    It is interpolated between the medians of the rates' idle times, on a logarithmic scale.
    """
    rates = sorted((each for each in found if len(each.gaps_us)), key=lambda each: float(np.median(each.gaps_us)))
    places = [np.log1p(each.gaps_us) for each in rates]
    at = np.array([0.0, *(np.median(each) for each in places)])
    wanted = np.array([max(0.0, each.processor_us * each.asked / len(each.gaps_us)) for each in rates])
    costs = wanted.copy()
    for _ in range(_ROUNDS):
        means = np.array([np.interp(each, at, [0.0, *costs]).mean() for each in places])
        costs *= np.sqrt(np.divide(wanted, means, out=np.ones_like(means), where=means > 0))
    found_costs: _Floats = np.interp(np.log1p(gaps), at, [0.0, *costs])
    return found_costs


def _above(times: _Floats, usual: Callable[[float], float], outside_us: float) -> list[float]:
    """Return how long requests gave way: by how much their times are above a level, such that the means agree.

    Those that came together are answered together: the first has the time of all, the others none.
    """
    each_us = float(np.mean([usual((rank + 0.5) / _LEAST) for rank in range(_LEAST)])) - outside_us
    more = max(0.0, float(times.mean()) - each_us)
    low, high = 0.0, float(times.max())
    for _ in range(50):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(0.0, times - level).mean() > more else (low, level)
    found: list[float] = np.maximum(0.0, times - high).tolist()
    return found


def _beyond(latencies: _Floats, usual: Callable[[float], float]) -> list[float]:
    """Return by how much sorted latencies are beyond the usual ones of the same rank."""
    count = len(latencies)
    return [max(0.0, float(each) - usual((rank + 0.5) / count)) for rank, each in enumerate(latencies)]
