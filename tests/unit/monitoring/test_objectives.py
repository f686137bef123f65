"""Objectives: budgets and burn rates are those of a brute-force count over single events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.monitoring.service import objectives
from mainspring.monitoring.service.burning import RULES, reports, signals
from mainspring.monitoring.service.objectives import Objective
from mainspring.monitoring.service.samples import Sample, by_hour, merged
from mainspring.monitoring.signals import SERVICE

NOW = 1_700_000_000 * SECOND // HOUR * HOUR
SLOW, FAST = "0.5", "0.05"


@dataclass(frozen=True)
class Event:
    """A request: minutes before now, its status, the bound of its duration."""

    ago: int
    status: str
    bound: str = FAST
    count: int = 1


def sampled(events: Sequence[Event], subject: str = "flights") -> list[Sample]:
    """Return the events as the samples of their minutes."""
    found: dict[int, dict[str, float]] = {}
    for event in events:
        counts = found.setdefault(event.ago, {})
        for key in (f"requests {event.status}", *([f"seconds {event.bound}"] if event.status == "200" else [])):
            counts[key] = counts.get(key, 0.0) + event.count
    return [
        Sample(
            subject=subject,
            start=NOW - ago * MINUTE,
            end=NOW - (ago - 1) * MINUTE,
            observed_us=MINUTE,
            counts=counts,
        )
        for ago, counts in sorted(found.items(), reverse=True)
    ]


def brute(events: Sequence[Event], minutes: int, good: Callable[[Event], bool | None]) -> tuple[int, int]:
    """Return the good and the bad events of the last minutes, one by one."""
    judged = [good(event) for event in events if event.ago <= minutes for _ in range(event.count)]
    return judged.count(True), judged.count(False)


def is_available(event: Event) -> bool | None:
    if event.status in ("500", "503", "429"):
        return False
    return True if event.status == "200" else None


def is_fast(event: Event) -> bool | None:
    return event.bound == FAST if event.status == "200" else None


JUDGES = [
    (objectives.availability(0.99), is_available),
    (objectives.availability(0.999, over="3d"), is_available),
    (objectives.latency(0.9, within="50ms", over="3d"), is_fast),
    (objectives.availability(0.5, over="7d"), is_available),
]
EVENTS = st.lists(
    st.builds(
        Event,
        ago=st.one_of(st.integers(1, 90), st.integers(1, 6 * 24 * 60)),
        status=st.sampled_from(["200", "200", "200", "500", "503", "429", "404", "499"]),
        bound=st.sampled_from([FAST, SLOW, "inf"]),
        count=st.integers(1, 60),
    ),
    max_size=40,
)


@pytest.mark.parametrize(("objective", "good"), JUDGES, ids=lambda each: getattr(each, "name", ""))
@settings(max_examples=examples(gate=40, deep=400), deadline=None)
@given(events=EVENTS)
def test_reports_are_what_single_events_say(
    objective: Objective, good: Callable[[Event], bool | None], events: list[Event]
) -> None:
    samples = [*sampled(events), *sampled([Event(1, "500", count=1000)], "another")]
    [report] = reports("flights", [objective], samples, NOW)
    expected = brute(events, objective.over_us // MINUTE, good)
    assert (round(report.good), round(report.bad)) == expected
    if not sum(expected):
        assert report.ratio is None
        assert report.budget_left is None
    else:
        assert report.ratio == pytest.approx(expected[0] / sum(expected))
        allowed = (1 - objective.target) * sum(expected)
        assert report.budget_left == pytest.approx((allowed - expected[1]) / allowed)
    for window, minutes in (("5m", 5), ("30m", 30), ("1h", 60), ("6h", 360), ("3d", 3 * 24 * 60)):
        ok, bad = brute(events, minutes, good)
        burn = report.burn[window]
        assert (burn is None) == (ok + bad == 0)
        if burn is not None:
            assert burn == pytest.approx(bad / (ok + bad) / (1 - objective.target))


@pytest.mark.parametrize(("objective", "good"), JUDGES, ids=lambda each: getattr(each, "name", ""))
@settings(max_examples=examples(gate=40, deep=400), deadline=None)
@given(events=EVENTS)
def test_an_alarm_is_what_single_events_say(
    objective: Objective, good: Callable[[Event], bool | None], events: list[Event]
) -> None:
    found = signals("flights", [objective], sampled(events), NOW)
    wanted = []
    for rate, long, short, page in ((14.4, 60, 5, True), (6.0, 360, 30, True), (1.0, 3 * 24 * 60, 360, False)):
        most = min(rate * (1 - objective.target), 0.5)
        counts = [brute(events, minutes, good) for minutes in (long, short)]
        burns = all(sum(each) and each[1] / sum(each) > most + 1e-12 for each in counts)
        if burns and counts[0][1] >= 5:
            wanted.append((page, long * MINUTE, min(each[1] / sum(each) for each in counts) / most))
    assert bool(found) == bool(wanted)
    if wanted:
        [signal], (page, long_us, severity) = found, wanted[0]
        assert (signal.channel, signal.endpoint, signal.statistic) == (SERVICE, "flights", objective.name)
        assert (signal.page, signal.start, signal.end) == (page, NOW - long_us, NOW)
        assert signal.severity == pytest.approx(severity)
        assert signal.severity > 1
        assert reports("flights", [objective], sampled(events), NOW)[0].alert == ("page" if page else "ticket")


@given(events=EVENTS)
@settings(max_examples=examples(gate=40, deep=200), deadline=None)
def test_hours_hold_what_their_minutes_held(events: list[Event]) -> None:
    [objective, *_] = [each for each, _ in JUDGES]
    samples = sampled(events)
    hours = by_hour(samples)
    assert len(hours) == len({sample.start // HOUR for sample in samples})
    assert sum(hour.observed_us for hour in hours) == len(samples) * MINUTE
    if samples:
        assert merged(hours) == merged(samples)
        assert merged(samples[::-1]) == merged(samples)
    whole, [again] = reports("flights", [objective], samples, NOW), reports("flights", [objective], hours, NOW)
    assert (again.good, again.bad) == pytest.approx((whole[0].good, whole[0].bad))


def test_everything_down_pages_whatever_the_target() -> None:
    down = sampled([Event(ago, "500") for ago in range(1, 400)])
    for target in (0.5, 0.9, 0.99, 0.9999):
        [signal] = signals("flights", [objectives.availability(target)], down, NOW)
        assert signal.page
        assert signal.value == 0.0


def test_a_single_failure_of_a_rare_request_is_no_alarm() -> None:
    few = sampled([Event(1, "500", count=4), Event(2, "200", count=3)])
    assert signals("flights", [objectives.availability(0.999)], few, NOW) == []
    assert signals("flights", [objectives.availability(0.999)], [], NOW) == []


def test_an_alarm_ends_when_the_short_window_is_well() -> None:
    outage = [Event(ago, "500", count=100) for ago in range(10, 30)]
    after = [Event(ago, "200", count=100) for ago in range(1, 6)]
    [signal] = signals("flights", [objectives.availability(0.999)], sampled(outage + after), NOW)
    assert signal.start == NOW - 6 * HOUR  # the first rule's five minutes are well again
    well = [Event(ago, "200", count=100) for ago in range(1, 31)]
    over = [Event(ago, "500", count=10) for ago in range(40, 60)]
    [signal] = signals("flights", [objectives.availability(0.999)], sampled(over + well), NOW)
    assert not signal.page


def test_an_interval_across_an_edge_counts_in_proportion() -> None:
    sample = Sample(
        subject="flights",
        start=NOW - 2 * DAY,
        end=NOW,
        observed_us=DAY,
        counts={"requests 200": 60.0, "requests 500": 20.0},
    )
    [report] = reports("flights", [objectives.availability(0.9, over="1d")], [sample], NOW)
    assert (report.good, report.bad, report.observed) == (30.0, 10.0, 0.5)


def test_freshness_is_a_share_of_looks_at_the_view() -> None:
    looks = [
        Sample(
            subject="view Recent",
            start=NOW - ago * MINUTE,
            end=NOW - (ago - 1) * MINUTE,
            observed_us=MINUTE,
            counts={f"lag {'inf' if ago < 20 else '300' if ago % 2 else '60'}": 1.0},
        )
        for ago in range(1, 101)
    ]
    promised = objectives.freshness("Recent", within="5m")
    [report] = reports("flights", [promised], looks, NOW)
    assert (report.good, report.bad) == (81.0, 19.0)
    [signal] = signals("flights", [promised], looks, NOW)
    assert signal.page
    assert "99% of the time Recent within 5m over 30d" in signal.detail
    assert "31.67% of minutes were bad" in signal.detail


def test_the_rules_are_those_of_the_workbook() -> None:
    assert [(rule.rate, rule.long_us, rule.short_us, rule.page) for rule in RULES] == [
        (14.4, HOUR, 5 * MINUTE, True),
        (6.0, 6 * HOUR, 30 * MINUTE, True),
        (1.0, 3 * DAY, 6 * HOUR, False),
    ]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: objectives.availability(1.0), "is 1.0. Fix: write a share of at least 0.5 and below 1"),
        (lambda: objectives.availability(99.9), "is 99.9"),
        (lambda: objectives.availability("0.9"), "'0.9', of type str"),  # type: ignore[arg-type]
        (lambda: objectives.availability(0.9, over="1h"), "over '1h'. Fix: write a duration from 1d to 35d"),
        (lambda: objectives.latency(0.9, within="60ms"), "no bound of its histogram. Fix: write 50ms or 100ms"),
        (lambda: objectives.latency(0.9, within="1h"), "Fix: write 10s."),
        (lambda: objectives.freshness("Recent", within="4m"), "Fix: write 3m or 5m"),
        (lambda: objectives.freshness("no/view", within="5m"), "no/view"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(declare: Callable[[], Objective], said: str) -> None:
    with pytest.raises(MainspringError) as refused:
        declare()
    assert said in str(refused.value)


def test_names_and_words() -> None:
    each = [
        objectives.availability(0.999),
        objectives.latency(0.99, within="50ms", over="28d"),
        objectives.freshness("Recent", within="1h 0m"),
    ]
    assert [objective.name for objective in each] == ["availability", "latency 50ms", "freshness Recent 1h"]
    assert [str(objective) for objective in each] == [
        "99.9% of requests answered over 30d",
        "99% of answers within 50ms over 28d",
        "99% of the time Recent within 1h over 30d",
    ]
