"""A pass of the monitor: silences open incidents once, and a part that fails stops no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from kit.console import flights
from kit.worlds import sketched
from mainspring.core.time import HOUR, MINUTE, WEEK, ManualClock
from mainspring.monitoring.incidents.feedback import confirmed, dismissed
from mainspring.monitoring.incidents.model import VERDICTS, Judged
from mainspring.monitoring.model import Window
from mainspring.monitoring.signals import CONTRACT, Signal
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.operations import watching
from mainspring.operations.watching import CHANNELS, Channel, Watch, watch

ENDPOINT = "late-arrival"
END = flights.START + flights.WEEKS * WEEK


@pytest.fixture
def project() -> flights.Project:
    made = flights.Project(definitions=flights.definitions(), clock=ManualClock(END), wall=ManualClock(END))
    made.monitors.save([msgspec.structs.replace(each, computed_at=each.end) for each in flights.windows()])
    return made


def later(project: flights.Project, us: int, clock: str = "clock") -> None:
    moved = getattr(project, clock)
    assert isinstance(moved, ManualClock)
    moved.advance(us)


def empty(number: int, **changes: Any) -> Window:
    start = END + number * WEEK
    blank = Window(
        endpoint=ENDPOINT, start=start, end=start + WEEK, predictions=0, p50_ms=None, p99_ms=None, labels=0,
        coverage=0.0, lag_p50_s=None, quality={}, columns=(), versions={}, computed_at=start + WEEK,
    )  # fmt: skip
    return msgspec.structs.replace(blank, **changes)


def seen(project: flights.Project, channels: Mapping[str, Channel] = CHANNELS) -> list[str]:
    changes = watch(project, windows=False, channels=channels)
    return [f"{change.event}: {change.incident.cause}" for change in changes if change.event]


def null_weather(watched: Watch) -> list[Judged]:
    window = watched.now - HOUR, watched.now
    signals = [
        Signal(
            channel=CONTRACT, endpoint=watched.endpoint, statistic="nulls", column=f"Weather.{name}", severity=3.0,
            start=window[0], end=window[1], page=True, value=1.0, expected=0.0, detail="All are null.",
        )
        for name in ("wind", "visibility", "pressure")
    ]  # fmt: skip
    return [Judged(watched.endpoint, CONTRACT, (window,), tuple(signals))]


def test_usual_traffic_opens_nothing(project: flights.Project) -> None:
    assert seen(project) == []
    assert project.incidents.find() == []


def test_no_predictions_where_they_are_usual_open_one_incident_and_their_return_closes_it(
    project: flights.Project,
) -> None:
    project.monitors.save([empty(0)])
    later(project, WEEK)
    assert seen(project) == ["opened: traffic late-arrival"]
    assert seen(project) == []
    [made] = project.incidents.open()
    assert made.page
    assert "6,7" in made.symptoms[0].detail
    project.monitors.save([empty(1), *(empty(number, predictions=9, labels=9, coverage=1.0) for number in (2, 3))])
    later(project, 3 * WEEK)
    assert seen(project) == ["closed: traffic late-arrival"]


def test_labels_that_do_not_come_are_an_incident_of_their_source(project: flights.Project) -> None:
    project.monitors.save([empty(0, predictions=6_600)])
    later(project, WEEK + HOUR)
    assert seen(project) == []  # too early for labels
    later(project, 24 * HOUR)
    assert seen(project) == ["opened: labels arrivals"]
    few = empty(1, predictions=6_600, labels=6_000, coverage=0.9)
    project.monitors.save([few, empty(2, predictions=6_600, labels=6_100, coverage=0.92)])
    later(project, 3 * WEEK)
    assert seen(project) == ["closed: labels arrivals"]


def test_nulls_of_a_whole_view_are_one_incident_of_their_source(project: flights.Project) -> None:
    assert seen(project, {"contract": null_weather}) == ["opened: source weather"]
    assert seen(project, {"contract": null_weather}) == []
    [made] = project.incidents.open()
    assert len(made.symptoms) == 3


def test_a_channel_that_crashes_is_an_incident_and_the_others_go_on(project: flights.Project) -> None:
    def crash(_: Watch) -> list[Judged]:
        raise ValueError("no such column")

    channels = {"broken": crash, "contract": null_weather}
    assert sorted(seen(project, channels)) == ["opened: monitor broken of late-arrival", "opened: source weather"]
    assert seen(project, channels) == []
    broken = {"broken": lambda _: [], "contract": null_weather}
    later(project, MINUTE, "wall")
    assert seen(project, broken) == []
    later(project, 2 * MINUTE, "wall")
    assert seen(project, broken) == ["closed: monitor broken of late-arrival"]


def test_windows_that_cannot_be_computed_are_an_incident_and_the_channels_go_on(project: flights.Project) -> None:
    def load(digest: str) -> Any:
        raise RuntimeError(f"no bundle {digest}")

    log = project.predictions
    log.append(flights._predictions(ENDPOINT, "d", "2", "desk"))
    log.compact()
    failing = project.having(
        monitor=WindowUpdates(
            log,
            project.monitors,
            sketched(log, load),
            labels=lambda _: None,
            load=load,
            clock=project.clock,
            window_us=WEEK,
        )
    )
    changes = watch(failing, channels={"contract": null_weather})
    assert sorted(str(each.incident.cause) for each in changes) == ["monitor windows of late-arrival", "source weather"]


def test_a_monitor_that_did_not_run_for_two_windows_says_so(project: flights.Project) -> None:
    assert seen(project) == []
    later(project, 2 * WEEK, "wall")
    assert seen(project) == []
    later(project, 2 * WEEK + 1, "wall")
    assert seen(project) == ["opened: monitor late-arrival"]
    later(project, 3 * MINUTE, "wall")
    assert seen(project) == ["closed: monitor late-arrival"]


def test_two_passes_at_once_open_one_incident(project: flights.Project) -> None:
    other = project.having()
    judged = null_weather(Watch(project, ENDPOINT, END, END - WEEK))
    first = watching.settle(project, judged, END)
    assert ([each.event for each in first], watching.settle(other, judged, END)) == (["opened"], [])
    assert len(other.incidents.find()) == 1


def test_verdicts_reach_the_channels(project: flights.Project) -> None:
    seen(project, {"contract": null_weather})
    [made] = project.incidents.open()
    assert (confirmed([made], ENDPOINT), dismissed([made], ENDPOINT)) == ([], [])
    real, false, expected = (msgspec.structs.replace(made, verdict=each) for each in VERDICTS)
    assert (confirmed([real], ENDPOINT), dismissed([real], ENDPOINT)) == ([(END - HOUR, END)], [])
    for verdict in (false, expected):
        assert confirmed([verdict], ENDPOINT) == []
        found = {(each.column, each.statistic, each.start, each.end) for each in dismissed([verdict], ENDPOINT)}
        assert found == {(f"Weather.{name}", "nulls", END - HOUR, END) for name in ("wind", "visibility", "pressure")}
    assert dismissed([false], "other") == []
