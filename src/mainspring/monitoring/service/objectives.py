"""Declaration of objectives: the share of an endpoint's requests, or of minutes, that must be good."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, format_duration, parse_duration
from mainspring.serving.model import LATENCY_BOUNDS

__all__ = ["availability", "freshness", "latency"]

AVAILABILITY, LATENCY, FRESHNESS = "availability", "latency", "freshness"
LATENCY_BOUNDS_US = tuple(round(bound * SECOND) for bound in LATENCY_BOUNDS)
LAG_BOUNDS_US = (
    *(n * SECOND for n in (1, 5, 10, 15, 30)),
    *(n * MINUTE for n in (1, 2, 3, 5, 10, 15, 20, 30, 45)),
    *(n * HOUR for n in (1, 2, 3, 4, 6, 8, 12, 18)),
    *(n * DAY for n in (1, 2, 3, 7, 14, 30)),
)
SHORTEST, LONGEST = DAY, 35 * DAY  # of the time over which an objective is measured


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """A promise about an endpoint: of the events of the last `over_us`, the share `target` is good.

    Attributes:
        kind: availability, latency or freshness.
        target: The share that must be good, at least 0.5 and below 1.
        over_us: Length of the rolling time over which the share is measured, microseconds.
        within_us: Of latency and freshness: the limit of a good event, microseconds.
        view: Of freshness: name of the feature view.
    """

    kind: str
    target: float
    over_us: int
    within_us: int = 0
    view: str = ""

    @property
    def name(self) -> str:
        """Name, unique among the objectives of one endpoint: `latency 50ms`."""
        return " ".join(part for part in (self.kind, self.view, self._limit) if part)

    @property
    def _limit(self) -> str:
        return format_duration(self.within_us) if self.within_us else ""

    def __str__(self) -> str:
        of = {
            AVAILABILITY: "of requests answered",
            LATENCY: f"of answers within {self._limit}",
            FRESHNESS: f"of the time {self.view} within {self._limit}",
        }
        return f"{percent(self.target)} {of[self.kind]} over {format_duration(self.over_us)}"


def percent(share: float) -> str:
    """Return a share as per cent, with as many digits as it has: `99.9%`."""
    return f"{float(f'{share * 100:.10g}'):.10g}%"


def availability(target: float, *, over: str | int = "30d") -> Objective:
    """Promise a share of requests that are answered.

    A request is bad if its reply is an error of the server (5xx), or a rejection under overload (429). A request that
    its caller got wrong (other 4xx), or that its caller gave up, does not count.

    Args:
        target: The share that must be good, such as 0.999.
        over: Rolling time over which the share is measured, a duration from 1d to 35d.

    Raises:
        Invalid: An argument is outside its range.
    """
    return Objective(kind=AVAILABILITY, target=_target(target, AVAILABILITY), over_us=_over(over, AVAILABILITY))


def latency(target: float, *, within: str | int, over: str | int = "30d") -> Objective:
    """Promise a share of answers that are given in time, from the arrival of the request to the reply.

    Args:
        target: The share that must be good, such as 0.99.
        within: The longest time of a good answer, a duration: one of the bounds at which a gateway counts.
        over: Rolling time over which the share is measured, a duration from 1d to 35d.

    Raises:
        Invalid: An argument is outside its range.
    """
    return Objective(
        kind=LATENCY,
        target=_target(target, LATENCY),
        over_us=_over(over, LATENCY),
        within_us=_bound(within, LATENCY_BOUNDS_US, "latency"),
    )


def freshness(view: str, *, within: str | int, target: float = 0.99, over: str | int = "30d") -> Objective:
    """Promise a share of the time in which a feature view's online values are recent enough.

    Once a minute the worker compares the time with the instant up to which the view is materialised.

    Args:
        view: Name of the feature view.
        within: The largest good lag of materialisation, a duration: one of the bounds at which lags are counted.
        target: The share of the time that must be good.
        over: Rolling time over which the share is measured, a duration from 1d to 35d.

    Raises:
        Invalid: An argument is outside its range.
    """
    name = getattr(view, "name", view)
    expect(name, str, "The view of the objective freshness", fix='name a feature view: "OriginTraffic".')
    check_id(name, "feature view")
    return Objective(
        kind=FRESHNESS,
        target=_target(target, FRESHNESS),
        over_us=_over(over, FRESHNESS),
        within_us=_bound(within, LAG_BOUNDS_US, "freshness"),
        view=name,
    )


def _target(target: float, kind: str) -> float:
    expect(target, (int, float), f"The target of the objective {kind}", fix="write a share, such as 0.999.")
    if not 0.5 <= target < 1.0:
        raise Invalid(
            f"The target of the objective {kind} is {target}.",
            fix="write a share of at least 0.5 and below 1: a target of 1 leaves no budget for a single error.",
        )
    return float(target)


def _over(over: str | int, kind: str) -> int:
    given = parse_duration(over)
    if not SHORTEST <= given <= LONGEST:
        raise Invalid(
            f"The objective {kind} is measured over {over!r}.",
            fix=f"write a duration from {format_duration(SHORTEST)} to {format_duration(LONGEST)}.",
        )
    return given


def _bound(within: str | int, bounds: Sequence[int], kind: str) -> int:
    given = parse_duration(within)
    if given not in bounds:
        place = bisect_left(bounds, given)
        near = " or ".join(format_duration(bound) for bound in bounds[max(0, place - 1) : place + 1])
        raise Invalid(
            f"The objective {kind} has within={within!r}, which is no bound of its histogram.", fix=f"write {near}."
        )
    return given
