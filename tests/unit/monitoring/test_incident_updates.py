"""Incidents open, change, end and come back, as a function of the evidence alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.time import DAY
from mainspring.monitoring.channels.windows import WEEK
from mainspring.monitoring.incidents.causes import Lineage, Origin, grouped
from mainspring.monitoring.incidents.model import MOST_SYMPTOMS, WEEKS, Incident, Judged, Policy
from mainspring.monitoring.incidents.updating import Change, Evidence, closed, updated
from mainspring.monitoring.signals import CHANNELS, CLASSIFIER, CONTRACT, JOINT, SURPRISE, Signal

W = 10  # length of a window
COLUMNS = {f"Weather.{name}": Origin("Weather", "weather") for name in ("wind", "temp", "rain")}
LINEAGE = Lineage(columns={"late": COLUMNS, "other": COLUMNS})
WATCHED = [(endpoint, channel) for endpoint in LINEAGE.columns for channel in CHANNELS]
ALL = [*WATCHED, ("late", WEEKS)]
POLICIES = {"late": Policy(clean_windows=2, cool_down_us=5 * W)}


def signal(window: int, column: str = "Weather.wind", *, channel: str = CONTRACT, **more: object) -> Signal:
    given_ = {"endpoint": "late", "statistic": "nulls", "severity": 2.0, **more}
    return Signal(channel=channel, column=column, start=window * W, end=(window + 1) * W, **given_)  # type: ignore[arg-type]


class World:
    """Incidents, and windows that a channel has judged so far."""

    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}
        self.signals: list[Signal] = []
        self.windows: dict[str, set[int]] = {}
        self._names = (f"i{number}" for number in count(1))

    def see(self, window: int, *signals: Signal, channel: str = CONTRACT) -> list[str]:
        """Judge a window; return the events."""
        self.signals += signals
        self.windows.setdefault(channel, set()).add(window)
        return [f"{each.incident.id} {each.event}" for each in self.look((window + 1) * W) if each.event]

    def look(self, now: int) -> list[Change]:
        judged = [
            Judged("late", channel, tuple((each * W, (each + 1) * W) for each in sorted(windows)))
            for channel, windows in self.windows.items()
        ]
        evidence = Evidence.of(judged, grouped(self.signals, LINEAGE), WATCHED, POLICIES)
        changes = updated([*self.incidents.values()], evidence, now, name=lambda: next(self._names))
        self.incidents |= {each.incident.id: each.incident for each in changes}
        return changes

    def change(self, id: str, **values: object) -> None:
        self.incidents[id] = msgspec.structs.replace(self.incidents[id], **values)

    @property
    def open(self) -> list[str]:
        return [each.id for each in self.incidents.values() if each.is_open]


def test_an_incident_opens_goes_on_and_closes_after_clean_windows() -> None:
    world = World()
    assert world.see(0, signal(0)) == ["i1 opened"]
    assert world.see(1, signal(1, severity=7.0)) == []
    assert world.incidents["i1"].symptoms[0].windows == 2
    assert (world.incidents["i1"].severity, world.incidents["i1"].last) == (7.0, 2 * W)
    assert world.see(2) == []
    assert world.see(3) == ["i1 closed"]
    assert (world.incidents["i1"].closed_through, world.open) == (4 * W, [])


def test_the_same_evidence_changes_nothing_twice() -> None:
    world = World()
    for window in range(6):
        world.see(window, *([signal(window)] if window in (0, 1) else []))
        assert world.look((window + 1) * W + 1) == []


def test_a_window_without_data_is_no_clean_one() -> None:
    world = World()
    world.see(0, signal(0))
    assert [change.event for change in world.look(50 * W)] == []
    assert world.open == ["i1"]


def test_another_channels_clean_windows_close_nothing() -> None:
    world = World()
    world.see(0, signal(0))
    for window in range(1, 9):
        world.see(window, channel=SURPRISE)
    assert world.open == ["i1"]


def test_a_ticket_of_the_weekly_classifier_is_closed_by_a_clean_week_and_not_by_days() -> None:
    alarm = Signal(
        channel=JOINT, endpoint="late", statistic=CLASSIFIER, column="Weather.wind", start=0, end=WEEK, severity=2.0
    )  # fmt: skip
    found = updated([], Evidence.of([Judged("late", WEEKS, ((0, WEEK),))], grouped([alarm], LINEAGE), ALL), WEEK)
    [opened] = [change.incident for change in found]
    days = Judged("late", JOINT, tuple((WEEK + day * DAY, WEEK + (day + 1) * DAY) for day in range(7)))
    week = Judged("late", WEEKS, ((0, WEEK), (WEEK, 2 * WEEK)))
    same = grouped([alarm], LINEAGE)
    assert updated([opened], Evidence.of([days], same, ALL), 2 * WEEK) == []
    [change] = updated([opened], Evidence.of([days, week], same, ALL), 2 * WEEK)
    assert (change.event, change.incident.closed_through) == ("closed", 2 * WEEK)
    again = msgspec.structs.replace(opened, reopened=2)  # eight clean windows are more than a week
    assert updated([again], Evidence.of([days, week], same, ALL), 2 * WEEK) == []


def test_a_channel_that_is_gone_keeps_nothing_open() -> None:
    world = World()
    world.see(0, signal(0))
    evidence = Evidence.of([], [], [pair for pair in WATCHED if pair[1] != CONTRACT])
    [change] = updated([*world.incidents.values()], evidence, 9 * W)
    assert change.event == "closed"


def test_a_cause_that_comes_back_within_the_cool_down_reopens_its_incident() -> None:
    world = World()
    world.see(0, signal(0))
    world.see(1)
    assert world.see(2) == ["i1 closed"]
    assert world.see(5, signal(5)) == ["i1 reopened"]
    assert world.incidents["i1"].reopened == 1
    assert [world.see(window) for window in (6, 7, 8, 9)] == [[], [], [], ["i1 closed"]]
    assert world.see(20, signal(20)) == ["i2 opened"]


def test_a_false_alarm_stays_closed_for_the_cool_down() -> None:
    world = World()
    world.see(0, signal(0))
    ended = closed(world.incidents["i1"], W, W, "ana", "false alarm")
    world.incidents["i1"] = msgspec.structs.replace(ended, verdict="false alarm")
    for window in range(1, 20):
        assert world.see(window, signal(window)) == []
    assert world.open == []
    assert world.see(30, signal(30)) == ["i2 opened"]


def test_a_dismissed_incident_that_becomes_much_worse_is_a_new_one() -> None:
    world = World()
    world.see(0, signal(0))
    ended = closed(world.incidents["i1"], W, W, "ana", "expected")
    world.incidents["i1"] = msgspec.structs.replace(ended, verdict="expected")
    assert world.see(1, signal(1, severity=3.9)) == []
    assert world.see(2, signal(2, severity=4.1)) == ["i2 opened"]


def test_evidence_that_a_closed_incident_has_seen_opens_none() -> None:
    world = World()
    world.see(0, signal(0))
    world.see(1)
    world.see(2)
    assert world.see(99) == []
    assert [*world.incidents] == ["i1"]


def test_evidence_that_was_over_before_it_was_seen_is_recorded_and_told_as_closed() -> None:
    world = World()
    world.windows[CONTRACT] = {0, 1, 2, 3}
    assert world.see(4, signal(0)) == []
    assert (world.open, world.incidents["i1"].closed_through) == ([], 3 * W)


def test_columns_become_their_source_once_it_shows() -> None:
    world = World()
    assert world.see(0, signal(0)) == ["i1 opened"]
    assert world.see(1, signal(1), signal(1, "Weather.temp")) == []
    assert str(world.incidents["i1"].cause) == "source weather"
    assert world.see(2, signal(2, "Weather.rain")) == []
    assert [*world.incidents] == ["i1"]


def test_a_wider_cause_takes_over_one_incident_and_closes_the_others() -> None:
    world = World()
    world.signals = [signal(0)]
    world.look(W)
    world.signals = [signal(0, "Weather.temp")]
    world.look(W + 1)
    assert world.open == ["i1", "i2"]
    world.signals = [signal(1), signal(1, "Weather.temp"), signal(1, "Weather.rain")]
    events = [(change.incident.id, change.event) for change in world.look(2 * W)]
    assert (events, world.open) == ([("i2", "closed"), ("i1", "")], ["i1"])
    assert {each.column for each in world.incidents["i1"].symptoms} == {*COLUMNS}
    world.signals = [signal(2)]
    assert [change.incident.id for change in world.look(3 * W)] == ["i1"]


def test_a_ticket_that_becomes_a_page_is_told_once_more() -> None:
    world = World()
    assert world.see(0, signal(0)) == ["i1 opened"]
    assert world.see(1, signal(1, page=True)) == ["i1 escalated"]
    assert world.see(2, signal(2, page=True)) == []


def test_a_silenced_incident_is_told_when_the_silence_ends() -> None:
    world = World()
    world.see(0, signal(0))
    world.change("i1", silenced_until=3 * W)
    assert world.see(1, signal(1, page=True)) == []
    assert world.see(2, signal(2)) == ["i1 escalated"]


def test_an_incident_that_closes_while_nobody_was_told_is_not_told() -> None:
    world = World()
    world.see(0, signal(0))
    world.change("i1", told="", silenced_until=99 * W)
    world.see(1)
    assert world.see(2) == []
    assert world.open == []


def test_a_storm_of_signals_is_one_incident_with_a_bounded_list() -> None:
    world = World()
    columns = {f"Wide.c{number}": Origin("Wide", "wide") for number in range(1_000)}
    groups = grouped([signal(0, column) for column in columns], Lineage(columns={"late": columns}))
    [change] = updated([], Evidence.of([], groups, WATCHED), W)
    assert (len(change.incident.symptoms), change.incident.more) == (MOST_SYMPTOMS, 1_000 - MOST_SYMPTOMS)
    again = updated([change.incident], Evidence.of([], groups, WATCHED), W + 1)
    assert (again, world.open) == ([], [])


def test_a_clock_that_jumps_back_ends_nothing_and_opens_nothing_twice() -> None:
    world = World()
    world.see(100, signal(100))
    assert [change.incident.id for change in world.look(1)] == []
    assert world.open == ["i1"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=25))
def test_looking_after_each_window_or_at_any_repetition_never_has_two_open_incidents_of_a_cause(
    history: Sequence[tuple[bool, bool, bool]],
) -> None:
    world = World()
    for window, fired in enumerate(history):
        world.see(window, *(signal(window, column) for column, on in zip(COLUMNS, fired, strict=True) if on))
        keys = [each.cause.key for each in world.incidents.values() if each.is_open]
        assert len(keys) == len({*keys})
        assert world.look((window + 1) * W) == []
        if any(fired):
            assert world.open
