"""Plans tried in advance: simulated rollouts on an endpoint's own traffic tell what they find, and how soon."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.time import HOUR
from mainspring.delivery.rollout.guards import ERRORS, LATENCY, Guard
from mainspring.delivery.rollout.observing import FEWEST, QUANTILES
from mainspring.delivery.rollout.plan import Plan
from mainspring.stats.sequential.distributions import bins_of
from mainspring.stats.sequential.planning import (
    WEEK,
    Course,
    Outlook,
    Step,
    foresee_events,
    foresee_latency,
    smallest_effect,
)

ERROR_SHARES = (0.01, 0.05, 0.5)  # of a candidate
SLOWER = (1.2, 1.5, 2.0)
RUNS, LOOKS = 200, 100
_RAREST = 1e-4  # share of failures of a champion that has none
_EPOCH_HOUR = 72  # 1970-01-01 was a Thursday: hours since the Monday before


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of an endpoint, as its log has it.

    Attributes:
        requests_an_hour: By hour of the week (UTC), Monday first; or of one hour, if the log is shorter than a week.
        errors: The champion's share of requests that fail.
        latencies: The champion's, in ms.
    """

    requests_an_hour: tuple[float, ...]
    errors: float = 0.0
    latencies: tuple[float, ...] = ()


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """Simulated rollouts of a candidate with one fault, judged by one guard.

    Attributes:
        candidate: What the candidate does, in words.
        rolled_back, cleared: Share of rollouts in which the guard is breached, and in which it is found to be safe.
        median_hours, late_hours: Time until either, of half and of nine tenths of rollouts; `None` if the plan ends
            sooner.
        met: Share of the plan's requests that the candidate answers until then.
    """

    guard: str
    candidate: str
    rolled_back: float
    cleared: float
    median_hours: float | None
    late_hours: float | None
    met: float


def traffic_of(at: npt.ArrayLike, latency_ms: npt.ArrayLike, share: npt.ArrayLike, errors: float = 0.0) -> Traffic:
    """Return the traffic of logged requests.

    Args:
        at: Times of the requests, UTC epoch microseconds; shape (requests,).
        latency_ms: Their latencies.
        share: Logged share of such requests: each stands for 1 / share.
    """
    times, each = np.asarray(at, dtype=np.int64), 1 / np.asarray(share, dtype=np.float64)
    if not times.size:
        return Traffic(requests_an_hour=(0.0,), errors=errors)
    hours = times // HOUR
    span = (times.max() - times.min()) / HOUR
    latencies = tuple(np.asarray(latency_ms, dtype=np.float64)[-20_000:].tolist())
    if span < WEEK:
        hourly = (float(each.sum() / max(span, 1.0)),)
    else:
        of_week = (hours + _EPOCH_HOUR) % WEEK
        number = np.bincount((np.unique(hours) + _EPOCH_HOUR) % WEEK, minlength=WEEK)
        weeks = np.maximum(number, max(1, round(span / WEEK)))  # an hour without a request is one, too
        hourly = tuple((np.bincount(of_week, each, WEEK) / weeks).tolist())
    return Traffic(requests_an_hour=hourly, errors=errors, latencies=latencies)


def foreseen(plan: Plan, traffic: Traffic, now: int) -> tuple[Foreseen, ...]:
    """Return what a plan finds, of the guards on errors and latency; nothing for a plan without a choice of arm.

    Args:
        now: UTC epoch microseconds: rollouts are simulated as if they started now.
    """
    steps = _steps(plan)
    if not steps or not sum(traffic.requests_an_hour):
        return ()
    labelled = any(guard.labelled for guard in (*plan.guards, *plan.goals))
    hourly = traffic.requests_an_hour
    course = Course(
        steps=steps,
        requests_an_hour=hourly if len(hourly) == WEEK else hourly[0],
        starts=(now / HOUR + _EPOCH_HOUR) % WEEK,
        alpha=plan.alpha / (len(plan.guards) + 1 + labelled),
        alpha_fine=plan.alpha,
        runs=RUNS,
        looks=LOOKS,
    )
    found: list[Foreseen] = []
    for guard in plan.guards:
        if guard.kind == ERRORS:
            found += _errors(course, guard, max(traffic.errors, _RAREST))
        elif guard.kind == LATENCY and len(traffic.latencies) >= FEWEST and len(set(traffic.latencies)) > 1:
            found += _latency(course, guard, traffic.latencies)
    return tuple(found)


def _steps(plan: Plan) -> tuple[Step, ...]:
    """Return the steps with a choice of arm, each as short as it may be, the last until the plan ends."""
    hold, longest = plan.hold_us / HOUR, plan.longest_us / HOUR
    shares = [share for share in plan.steps if 0 < share < 1]
    if not shares:
        return ()
    return tuple(Step(share, hold if share != shares[-1] else longest - hold * (len(shares) - 1)) for share in shares)


def _errors(course: Course, guard: Guard, rate: float) -> list[Foreseen]:
    def outlook(share: float) -> Outlook:
        ratio = 1 + guard.tolerance
        return foresee_events(course, rate, [share / rate], ratio, at_most=guard.at_most or 0.0)[0]

    allowed = max(rate * (1 + guard.tolerance), guard.at_most or 0.0)
    shares = [rate, *(share for share in ERROR_SHARES if share > allowed)]
    found = [_of(guard, f"{100 * share:.3g}% of its requests fail", outlook(share)) for share in shares]
    return [*found, *_smallest(guard, outlook, allowed, 1.0, lambda share: f"{100 * share:.3g}% of its requests fail")]


def _latency(course: Course, guard: Guard, latencies: Sequence[float]) -> list[Foreseen]:
    bins = bins_of(latencies, QUANTILES)

    def outlook(factor: float) -> Outlook:
        return foresee_latency(course, bins, latencies, [factor], 1 + guard.tolerance)[0]

    found = [_of(guard, f"it takes {factor:g} times as long", outlook(factor)) for factor in (1.0, *SLOWER)]
    return [*found, *_smallest(guard, outlook, 1.001, 20.0, lambda factor: f"it takes {factor:.3g} times as long")]


def _smallest(
    guard: Guard, outlook: Callable[[float], Outlook], low: float, high: float, said: Callable[[float], str]
) -> list[Foreseen]:
    smallest = smallest_effect(outlook, low, high)
    if smallest is None:
        return []
    return [_of(guard, f"{said(smallest)}, the least that 4 of 5 rollouts find", outlook(smallest))]


def _of(guard: Guard, candidate: str, outlook: Outlook) -> Foreseen:
    return Foreseen(
        guard=guard.name,
        candidate=candidate,
        rolled_back=outlook.breached,
        cleared=outlook.cleared,
        median_hours=outlook.median_hours,
        late_hours=outlook.late_hours,
        met=outlook.met,
    )
