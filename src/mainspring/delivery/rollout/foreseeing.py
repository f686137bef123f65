"""Plans tried in advance: simulated rollouts on an endpoint's own traffic tell what they find, and how soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.time import HOUR, SECOND
from mainspring.delivery.rollout.guards import ERRORS, LATENCY, SCORE, Guard
from mainspring.delivery.rollout.judging import alpha_of_guards
from mainspring.delivery.rollout.labelling import FEWEST as FEWEST_LABELS
from mainspring.delivery.rollout.labelling import counted_as, history, history_bounds, horizons
from mainspring.delivery.rollout.losses import values_of
from mainspring.delivery.rollout.observing import FEWEST, edges
from mainspring.delivery.rollout.plan import Plan
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.model import LabelRows
from mainspring.stats.sequential.distributions import TAIL, bins_of
from mainspring.stats.sequential.planning import (
    WEEK,
    Course,
    Outlook,
    Step,
    foresee_events,
    foresee_latency,
    foresee_means,
    foresee_scores,
    smallest_effect,
)

ERROR_SHARES = (0.01, 0.05, 0.5)  # of a candidate
SLOWER = (1.2, 1.5, 2.0)
MOVED = (0.25, 0.5, 1.0)  # standard deviations
WORSE = (0.1, 0.25, 0.5)  # of the champion's mean
RUNS, LOOKS = 200, 100
_RAREST = 1e-4  # share of failures of a champion that has none
_EPOCH_HOUR = 72  # 1970-01-01 was a Thursday: hours since the Monday before


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """Values of the champion's predictions that have a label at a horizon.

    Attributes:
        age_us: The horizon.
        known: Share of predictions that have a label by then.
        values: By what is counted: larger is worse.
    """

    age_us: int
    known: float
    values: dict[str, tuple[float, ...]]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of an endpoint, as its log has it.

    Attributes:
        requests_an_hour: By hour of the week (UTC), Monday first; or of one hour, if the log is shorter than a week.
        errors: The champion's share of requests that fail.
        latencies: The champion's, in ms.
        scores: The champion's.
        labelled: Of horizons whose labels are known.
    """

    requests_an_hour: tuple[float, ...]
    errors: float = 0.0
    latencies: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    labelled: tuple[Labelled, ...] = ()


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """Simulated rollouts of a candidate with one fault, or of a better one, judged by one guard or goal.

    Attributes:
        candidate: What the candidate does, in words.
        rolled_back, cleared: Share of rollouts in which the guard is breached, and in which it is found to be safe; of
            a goal, in which the candidate is found to be better.
        median_hours, late_hours: Time until either, of half and of nine tenths of rollouts; `None` if the plan ends
            sooner.
        met: Share of the plan's requests that the candidate answers until then.
        least: True of the smallest fault that four of five rollouts find within the plan.
    """

    guard: str
    candidate: str
    rolled_back: float
    cleared: float
    median_hours: float | None
    late_hours: float | None
    met: float
    least: bool = False


def traffic_of(
    at: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    share: npt.ArrayLike,
    errors: float = 0.0,
    scores: Sequence[float] = (),
    labelled: Sequence[Labelled] = (),
    *,
    cut: bool = False,
) -> Traffic:
    """Return the traffic of logged requests.

    Args:
        at: Times of the requests, UTC epoch microseconds; shape (requests,).
        latency_ms: Their latencies.
        share: Logged share of such requests: each stands for 1 / share.
        scores: Their scores; those that are no number are left out.
        cut: Whether the log has older requests, too. If not, what is there counts as an hour's traffic at most.
    """
    times, each = np.asarray(at, dtype=np.int64), 1 / np.asarray(share, dtype=np.float64)
    if not times.size:
        return Traffic(requests_an_hour=(0.0,), errors=errors, labelled=tuple(labelled))
    hours = times // HOUR
    span = (times.max() - times.min()) / HOUR
    latencies = tuple(np.asarray(latency_ms, dtype=np.float64)[-20_000:].tolist())
    if span < WEEK:
        hourly = (float(each.sum() / max(span, SECOND / HOUR if cut else 1.0)),)
    else:
        of_week = (hours + _EPOCH_HOUR) % WEEK
        number = np.bincount((np.unique(hours) + _EPOCH_HOUR) % WEEK, minlength=WEEK)
        weeks = np.maximum(number, max(1, round(span / WEEK)))  # an hour without a request is one, too
        hourly = tuple((np.bincount(of_week, each, WEEK) / weeks).tolist())
    numbers = tuple(each for each in scores if np.isfinite(each))
    return Traffic(
        requests_an_hour=hourly, errors=errors, latencies=latencies, scores=numbers, labelled=tuple(labelled)
    )


def labelled_of(plan: Plan, log: PredictionStore, labels: LabelRows, version: str, now: int) -> list[Labelled]:
    """Return what the log and the labels tell of the champion at each horizon of a plan."""
    found = []
    for horizon in horizons(plan):
        known_labels, age = horizon.of(labels)
        made, joined = history(log, plan.endpoint, version, known_labels, age, now)
        if made and joined.num_rows:
            each = {counted_as(guard): values_of(guard, joined) for guard in horizon.guards}
            values = {name: tuple(one[np.isfinite(one)].tolist()) for name, one in each.items()}
            found.append(Labelled(age_us=age, known=joined.num_rows / made, values=values))
    return found


def foreseen(plan: Plan, traffic: Traffic, now: int, *, runs: int = RUNS) -> tuple[Foreseen, ...]:
    """Return what a plan finds; nothing for a plan without a choice of arm. Guards without a history are left out.

    Args:
        now: UTC epoch microseconds: rollouts are simulated as if they started now.
        runs: Simulated rollouts of each fault.
    """
    steps = _steps(plan)
    if not steps or not sum(traffic.requests_an_hour):
        return ()
    hourly = traffic.requests_an_hour
    course = Course(
        steps=steps,
        requests_an_hour=hourly if len(hourly) == WEEK else hourly[0],
        starts=(now / HOUR + _EPOCH_HOUR) % WEEK,
        alpha=alpha_of_guards(plan),
        alpha_fine=plan.alpha,
        runs=runs,
        looks=LOOKS,
    )
    goals = [msgspec.structs.replace(goal, tolerance=0.0) for goal in plan.goals]
    found = [_faults(course, guard, traffic) for guard in plan.guards]
    found += [_means(course, goal, traffic, -1) for goal in goals]
    return tuple(each for faults in found if faults is not None for each in _outlooks(faults))


def _steps(plan: Plan) -> tuple[Step, ...]:
    """Return the steps with a choice of arm, each as short as it may be, the last until the plan ends."""
    hold, longest = plan.hold_us / HOUR, plan.longest_us / HOUR
    shares = [share for share in plan.steps if 0 < share < 1]
    if not shares:
        return ()
    return tuple(Step(share, hold if share != shares[-1] else longest - hold * (len(shares) - 1)) for share in shares)


class _Faults(NamedTuple):
    """Faults of one size each, found by one guard.

    Attributes:
        outlook: Outlook of a candidate with a fault of a size.
        sizes: No fault first.
        range: Sizes between which the smallest one is looked for that is found; the first is tolerated.
        said: A fault in words.
        goal: True of improvements, found by a goal: outlooks count a proof that the candidate is better as a breach.
    """

    guard: Guard
    outlook: Callable[[float], Outlook]
    sizes: Sequence[float]
    range: tuple[float, float]
    said: Callable[[float], str]
    goal: bool = False


def _outlooks(faults: _Faults) -> Iterator[Foreseen]:
    outlook = cache(faults.outlook)
    for size in faults.sizes:
        yield _of(faults, size, outlook(size), least=False)
    smallest = smallest_effect(outlook, *faults.range, tried=faults.sizes)
    if smallest is not None:
        yield _of(faults, smallest, outlook(smallest), least=True)


def _faults(course: Course, guard: Guard, traffic: Traffic) -> _Faults | None:
    if guard.kind == ERRORS:
        return _errors(course, guard, max(traffic.errors, _RAREST))
    if guard.kind == LATENCY:
        enough = len(traffic.latencies) >= FEWEST and len(set(traffic.latencies)) > 1
        return _latency(course, guard, traffic.latencies) if enough else None
    if guard.kind == SCORE:
        enough = len(traffic.scores) >= FEWEST and len(set(traffic.scores)) > 1
        return _scores(course, guard, traffic.scores) if enough else None
    return _means(course, guard, traffic, 1)


def _errors(course: Course, guard: Guard, rate: float) -> _Faults:
    def outlook(share: float) -> Outlook:
        ratio = 1 + guard.tolerance
        return foresee_events(course, rate, [share / rate], ratio, at_most=guard.at_most or 0.0)[0]

    allowed = max(rate * (1 + guard.tolerance), guard.at_most or 0.0)
    sizes = [rate, *(share for share in ERROR_SHARES if share > allowed)]
    return _Faults(guard, outlook, sizes, (allowed, 1.0), lambda share: f"{100 * share:.3g}% of its requests fail")


def _latency(course: Course, guard: Guard, latencies: Sequence[float]) -> _Faults:
    bins = bins_of(latencies, TAIL)

    def outlook(factor: float) -> Outlook:
        return foresee_latency(course, bins, latencies, [factor], guard.factor)[0]

    return _Faults(
        guard, outlook, (1.0, *SLOWER), (guard.factor, 20.0), lambda factor: f"it takes {factor:.3g} times as long"
    )


def _scores(course: Course, guard: Guard, scores: Sequence[float]) -> _Faults:
    inner = edges(np.asarray(scores))

    def outlook(moved: float) -> Outlook:
        return foresee_scores(course, inner, scores, [moved], 1 + guard.tolerance)[0]

    def said(moved: float) -> str:
        unit = "standard deviation" if moved == 1 else "standard deviations"
        return f"its scores are higher by {moved:.2g} {unit}" if moved else "its scores are alike"

    return _Faults(guard, outlook, (0.0, *MOVED), (0.01, 8.0), said)


def _means(course: Course, guard: Guard, traffic: Traffic, sign: int) -> _Faults | None:
    """Return worse means, or with `sign` -1 better ones, of values for which larger is worse."""
    name = counted_as(guard)
    of = next((each for each in traffic.labelled if name in each.values), None)
    values = np.asarray(() if of is None else of.values[name])
    if of is None or values.size < FEWEST_LABELS or values.min() == values.max():
        return None
    bounds = history_bounds(guard, values)
    clipped = np.clip(values, bounds.low, bounds.high)
    mean, shown = float(clipped.mean()), -1 if guard.higher_is_better else 1
    reach = 0.95 * float((clipped.max() if sign > 0 else clipped.min()) - mean) * sign
    late = msgspec.structs.replace(course, delay_hours=of.age_us / HOUR, counted=of.known)

    def outlook(size: float) -> Outlook:
        found = foresee_means(late, bounds, values, [sign * size], guard.tolerance)[0]
        return found if sign > 0 else msgspec.structs.replace(found, breached=found.cleared, cleared=found.breached)

    def said(size: float) -> str:
        return f"a mean of {shown * (mean + sign * size):.3g}, the champion's is {shown * mean:.3g}"

    sizes = [size for size in (part * abs(mean) for part in WORSE) if guard.tolerance < size < reach]
    least = max(guard.tolerance, 1e-3 * reach)
    return _Faults(guard, outlook, (0.0, *sizes), (least, max(reach, least)), said, sign < 0)


def _of(faults: _Faults, size: float, outlook: Outlook, *, least: bool) -> Foreseen:
    return Foreseen(
        guard=faults.guard.name,
        candidate=faults.said(size),
        rolled_back=0.0 if faults.goal else outlook.breached,
        cleared=outlook.breached if faults.goal else outlook.cleared,
        median_hours=outlook.median_hours,
        late_hours=outlook.late_hours,
        met=outlook.met,
        least=least,
    )
