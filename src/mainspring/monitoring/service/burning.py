"""Error budgets and burn rates of objectives. Pure: no store, no clock.

A burn rate of 1 uses up the error budget exactly at the end of the objective's time. Alerts look at two windows each:
the long one tells that the damage is large, the short one that it goes on (Site Reliability Workbook, chapter 5,
https://sre.google/workbook/alerting-on-slos/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, format_duration
from mainspring.monitoring.service.objectives import AVAILABILITY, FRESHNESS, LATENCY, Objective
from mainspring.monitoring.service.samples import LAG, REQUESTS, SECONDS, VIEW, Sample, Span, share_inside, variable
from mainspring.monitoring.signals import SERVICE, Signal

FEWEST_BAD = 5  # bad events in the long window without which nothing is an alarm: single errors of rare requests
MOST_SHARE = 0.5  # share of bad events that suffices for an alarm where a burn rate cannot be reached
OVERLOADED = "429"
_ROUNDING = 1e-12


class BurnRule(NamedTuple):
    """An alarm: both windows burn the budget faster than `rate`."""

    rate: float
    long_us: int
    short_us: int
    page: bool

    def share(self, objective: Objective) -> float:
        """Return the share of bad events above which a window of the objective burns too fast."""
        return min(self.rate * (1.0 - objective.target), MOST_SHARE)


RULES = (
    BurnRule(14.4, HOUR, 5 * MINUTE, True),
    BurnRule(6.0, 6 * HOUR, 30 * MINUTE, True),
    BurnRule(1.0, 3 * DAY, 6 * HOUR, False),
)
WINDOWS_US = tuple(sorted({window for rule in RULES for window in (rule.short_us, rule.long_us)}))


class ObjectiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """An objective of an endpoint as it stands.

    Attributes:
        endpoint: Name of the endpoint.
        objective: Name of the objective.
        about: The objective in words.
        target: The share that must be good.
        over: The time over which it is measured.
        good: Good events in that time.
        bad: Bad events in that time.
        ratio: Share of good events; `None` without events.
        budget_left: Share of the error budget that is left, below 0 if more was used; `None` without events.
        burn: Window -> burn rate; `None` without events.
        observed: Share of the time that was observed.
        alert: `page`, `ticket` or empty.
    """

    endpoint: str
    objective: str
    about: str
    target: float
    over: str
    good: float
    bad: float
    ratio: float | None
    budget_left: float | None
    burn: dict[str, float | None]
    observed: float
    alert: str = ""


def subject(endpoint: str, objective: Objective) -> str:
    """Return the subject of the samples by which an objective is judged."""
    return f"{VIEW}{objective.view}" if objective.kind == FRESHNESS else endpoint


def span(objective: Objective, sample: Sample) -> Span:
    """Return the good and bad events of a sample."""
    good, bad = _EVENTS[objective.kind](objective, sample)
    return Span(sample.start, sample.end, good, bad)


def spans(endpoint: str, objective: Objective, samples: Iterable[Sample]) -> list[Span]:
    """Return the events of an objective in samples of all subjects."""
    of = subject(endpoint, objective)
    return [span(objective, sample) for sample in samples if sample.subject == of]


def counted(events: Iterable[Span], since: int, until: int) -> tuple[float, float]:
    """Return the good and the bad events in `[since, until)`; of an interval across an edge, in proportion."""
    good = bad = 0.0
    for each in events:
        inside = share_inside(each.start, each.end, since, until)
        good += inside * each.good
        bad += inside * each.bad
    return good, bad


def bad_share(events: Iterable[Span], since: int, until: int) -> float | None:
    """Return the share of bad events in `[since, until)`, `None` without events."""
    good, bad = counted(events, since, until)
    return bad / (good + bad) if good + bad else None


def signals(endpoint: str, objectives: Sequence[Objective], samples: Sequence[Sample], now: int) -> list[Signal]:
    """Return the objectives that burn their budget too fast, each by its most urgent rule.

    Args:
        samples: Of the last three days, of all places and subjects.
        now: UTC epoch microseconds.
    """
    found = (_signal(endpoint, each, spans(endpoint, each, samples), now) for each in objectives)
    return [signal for signal in found if signal is not None]


def reports(
    endpoint: str, objectives: Sequence[Objective], samples: Sequence[Sample], now: int
) -> list[ObjectiveReport]:
    """Return the objectives as they stand.

    Args:
        samples: Of the longest time of an objective, of all places and subjects.
        now: UTC epoch microseconds.
    """
    return [_report(endpoint, each, samples, now) for each in objectives]


def _report(endpoint: str, objective: Objective, samples: Sequence[Sample], now: int) -> ObjectiveReport:
    of, since, budget = subject(endpoint, objective), now - objective.over_us, 1.0 - objective.target
    own = [sample for sample in samples if sample.subject == of]
    events = [span(objective, sample) for sample in own]
    good, bad = counted(events, since, now)
    share = bad / (good + bad) if good + bad else None
    shares = {format_duration(window): bad_share(events, now - window, now) for window in WINDOWS_US}
    observed = sum(each.observed_us * share_inside(each.start, each.end, since, now) for each in own)
    signal = _signal(endpoint, objective, events, now)
    return ObjectiveReport(
        endpoint=endpoint,
        objective=objective.name,
        about=str(objective),
        target=objective.target,
        over=format_duration(objective.over_us),
        good=good,
        bad=bad,
        ratio=None if share is None else 1.0 - share,
        budget_left=None if share is None else 1.0 - share / budget,
        burn={window: None if each is None else each / budget for window, each in shares.items()},
        observed=min(1.0, observed / objective.over_us),
        alert="" if signal is None else "page" if signal.page else "ticket",
    )


def _signal(endpoint: str, objective: Objective, events: Sequence[Span], now: int) -> Signal | None:
    for rule in RULES:  # the most urgent first
        most = rule.share(objective)
        good, bad = counted(events, now - rule.long_us, now)
        short = bad_share(events, now - rule.short_us, now)
        if bad < FEWEST_BAD or short is None or min(bad / (good + bad), short) <= most + _ROUNDING:
            continue
        long = bad / (good + bad)
        return Signal(
            channel=SERVICE,
            endpoint=endpoint,
            statistic=objective.name,
            start=now - rule.long_us,
            end=now,
            severity=min(long, short) / most,
            value=1.0 - long,
            expected=objective.target,
            page=rule.page,
            detail=(
                f"{objective}: in the last {format_duration(rule.long_us)} {long:.2%} of {_EVENT[objective.kind]} were "
                f"bad, {long / (1.0 - objective.target):.3g} times as many as the budget allows."
            ),
        )
    return None


def _of_availability(_objective: Objective, sample: Sample) -> tuple[float, float]:
    good = bad = 0.0
    for status, count in variable(sample.counts, REQUESTS).items():
        if status >= "500" or status == OVERLOADED:
            bad += count
        elif status < "400":
            good += count
    return good, bad


def _of_latency(objective: Objective, sample: Sample) -> tuple[float, float]:
    return _of_bounds(sample, SECONDS, objective.within_us)


def _of_freshness(objective: Objective, sample: Sample) -> tuple[float, float]:
    return _of_bounds(sample, LAG, objective.within_us)


def _of_bounds(sample: Sample, name: str, within_us: int) -> tuple[float, float]:
    counts = variable(sample.counts, name)
    good = sum(count for bound, count in counts.items() if float(bound) * SECOND <= within_us + 0.5)
    return good, sum(counts.values()) - good


_EVENTS = {AVAILABILITY: _of_availability, LATENCY: _of_latency, FRESHNESS: _of_freshness}
_EVENT = {AVAILABILITY: "requests", LATENCY: "answers", FRESHNESS: "minutes"}
