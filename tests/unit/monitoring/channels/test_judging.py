from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.made_days import COLUMNS, FIRST, Change, Rows, reference, rows_of, spans, without
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.judging import Hour as OneHour
from mainspring.monitoring.channels.judging import Watched, judge
from mainspring.monitoring.signals import CONTRACT, JOINT, SURPRISE, Signal
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketch_history import Day, pack
from mainspring.stats.sketches import MOST_PAIRED, Pairs, Ruler, Sketch

pytestmark = pytest.mark.slow

DAYS, TRAINED = 84, 60
END = (FIRST + DAYS) * DAY


@dataclass(frozen=True)
class Hour:
    hour: int
    segment: str
    sketch: Sketch
    pairs: Pairs | None


@pytest.fixture(scope="module")
def trained() -> Reference:
    return reference(TRAINED)


@pytest.fixture(scope="module")
def ruler(trained: Reference) -> Ruler:
    return Ruler(trained, COLUMNS)


@pytest.fixture(scope="module")
def watched(trained: Reference, ruler: Ruler) -> Watched:
    days = [Day(span.start, span.end, span.sketch, span.pairs) for span in spans(ruler, TRAINED) if span.pairs]
    return Watched("shop", msgspec.structs.replace(trained, history=pack(days)), version="3")


def signals(watched: Watched, lived: Sequence[OneHour], *, since: int, until: int) -> list[Signal]:
    return list(judge(watched, lived, since=since, until=until).signals)


def hours(
    ruler: Ruler, changes: Mapping[int, Change] | None = None, segment: str = "", first: int = TRAINED
) -> list[Hour]:
    """Return two hours of each live day."""
    found = []
    for day in range(first, DAYS):
        rows = (changes or {}).get(day, lambda rows: rows)(rows_of(FIRST + day))
        for place, hour in enumerate((9, 17)):
            half = {name: values[place::2] for name, values in rows.items()}
            found.append(Hour((FIRST + day) * DAY + hour * HOUR, segment, *ruler.measure(half)))
    return found


def test_ordinary_days_are_quiet(watched: Watched, ruler: Ruler) -> None:
    found = signals(watched, hours(ruler), since=0, until=END)
    assert {each.channel for each in found} <= {SURPRISE, JOINT}
    assert len({each.start for each in found}) <= (DAYS - TRAINED) * 2 / 7  # twice the budget


def test_a_fault_is_a_page_by_the_hour_and_a_ticket_by_the_day(watched: Watched, ruler: Ruler) -> None:
    broken = {
        DAYS - 1: lambda rows: without(rows, ["Road.traffic"]),
        DAYS - 2: lambda rows: without(rows, ["Road.traffic"]),
    }
    found = signals(watched, hours(ruler, broken), since=END - DAY, until=END)
    pages = [each for each in found if each.channel == CONTRACT]
    tickets = [each for each in found if each.channel == SURPRISE]
    assert {(each.column, each.statistic, each.end - each.start) for each in pages} == {("Road.traffic", "nulls", HOUR)}
    assert [(each.column, each.end - each.start) for each in tickets] == [("Road.traffic", DAY)]
    assert {each.version for each in found} == {"3"}
    assert {each.endpoint for each in found} == {"shop"}


def test_a_day_that_is_not_over_is_judged_by_the_contract_alone(watched: Watched, ruler: Ruler) -> None:
    broken = {
        DAYS - 1: lambda rows: without(rows, ["Road.traffic"]),
        DAYS - 2: lambda rows: without(rows, ["Road.traffic"]),
    }
    noon = END - DAY // 2
    found = signals(watched, hours(ruler, broken), since=END - DAY, until=noon)
    assert {each.channel for each in found} == {CONTRACT}
    assert all(END - DAY < each.end <= noon for each in found)


def test_signals_are_of_the_windows_asked_for(watched: Watched, ruler: Ruler) -> None:
    """Passes one after the other say what one pass says."""
    broken = {day: (lambda rows: without(rows, ["Shop.visits"], 0.3)) for day in (DAYS - 3, DAYS - 2)}
    lived = hours(ruler, broken)
    whole = signals(watched, lived, since=END - 4 * DAY, until=END)
    parts = [
        each
        for day in range(4)
        for each in signals(watched, lived, since=END - (4 - day) * DAY, until=END - (3 - day) * DAY)
    ]
    assert whole
    assert sorted(whole, key=repr) == sorted(parts, key=repr)


def test_a_segment_is_judged_by_its_own_history(watched: Watched, ruler: Ruler) -> None:
    lived = hours(ruler)
    moved = {DAYS - 1: lambda rows: {**rows, "Shop.sales": rows["Shop.sales"] + 5.0}}
    segment = hours(ruler, moved, "Road.kind=bus", first=0)
    found = signals(watched, [*lived, *segment], since=END - DAY, until=END)
    assert ("Road.kind=bus", "Shop.sales") in {(each.segment, each.column) for each in found}


def test_a_segment_of_few_rows_is_not_judged(watched: Watched, ruler: Ruler) -> None:
    def few(rows: Rows) -> Rows:
        return {name: values[:150] for name, values in rows.items()}

    changes = dict.fromkeys(range(DAYS), few)
    changes[DAYS - 1] = lambda rows: few({**rows, "Shop.sales": rows["Shop.sales"] + 5.0})
    found = signals(watched, hours(ruler, changes, "Road.kind=bus", first=0), since=END - DAY, until=END)
    assert [each for each in found if each.segment] == []


ROLLOUT = {DAYS - 12: 0.1, DAYS - 9: 0.5, DAYS - 5: 0.95, DAYS - 3: 1.0}  # from a day on, the new version's part


def rolled_out(ruler: Ruler, lost: Mapping[int, float] | None = None) -> tuple[list[Hour], list[Hour]]:
    """Return the hours of an old and a new version, and lose a part of the rows of some days."""

    def part(day: int, of_new: bool) -> Change:
        share = max((each for first, each in ROLLOUT.items() if day >= first), default=0.0)

        def change(rows: Rows) -> Rows:
            count = int(len(rows["Shop.sales"]) * (1 - (lost or {}).get(day, 0.0)))
            cut = int(count * share)
            return {name: values[:cut] if of_new else values[cut:count] for name, values in rows.items()}

        return change

    old, new = ([each for each in hours(ruler, {day: part(day, of_new) for day in range(TRAINED, DAYS)})
                 if each.sketch.counts[0, 0]] for of_new in (False, True))  # fmt: skip
    return old, new


def of_endpoint(watched: Watched, versions: Sequence[Sequence[Hour]]) -> list[Signal]:
    """Return the signals of the versions of an endpoint, which know of each other's traffic."""
    ruler = Ruler(watched.reference, COLUMNS)
    days = [Day(each.start, each.end, each.sketch, each.pairs) for each in spans(ruler, min(ROLLOUT)) if each.pairs]
    new = replace(watched, reference=msgspec.structs.replace(watched.reference, history=pack(days)))
    traffic: dict[int, tuple[int, float]] = {}
    for each in (hour for version in versions for hour in version):
        rows, day = int(each.sketch.counts[0, 0]), each.hour // DAY * DAY
        before = traffic.get(day, (0, 0.0))
        traffic[day] = before[0] + rows, before[1] + rows
    found = []
    for number, version in enumerate(versions):
        one = replace(new if number else watched, version=str(number), traffic={"": traffic})
        found += signals(one, version, since=END - 14 * DAY, until=END)
    return found


def test_a_rollout_changes_shares_and_raises_no_ticket(watched: Watched, ruler: Ruler) -> None:
    versions = rolled_out(ruler)
    found = of_endpoint(watched, versions)
    assert {each.statistic for each in found} & {"rows", "shape"} == set()
    without_rollout = signals(watched, hours(ruler), since=END - 14 * DAY, until=END)
    assert len({each.start for each in found}) <= len({each.start for each in without_rollout}) + 2
    alone = [each for version in versions for each in signals(watched, version, since=END - 14 * DAY, until=END)]
    assert {each.statistic for each in alone} >= {"rows"}  # each version by itself lost or gained traffic


def test_traffic_that_is_lost_in_a_rollout_is_one_ticket_of_the_endpoint(watched: Watched, ruler: Ruler) -> None:
    found = of_endpoint(watched, rolled_out(ruler, {DAYS - 7: 0.6}))
    lost = [each for each in found if each.statistic == "rows"]
    assert {(each.start, each.version, round(each.value or 0.0)) for each in lost} == {(END - 7 * DAY, "", 160)}
    assert "160 rows; 400 were expected" in lost[0].detail


def test_traffic_that_is_logged_in_part_is_not_lost(watched: Watched, ruler: Ruler) -> None:
    def tenth(rows: Rows) -> Rows:
        return {name: values[:40] for name, values in rows.items()}

    lived = hours(ruler, dict.fromkeys(range(DAYS - 3, DAYS), tenth))
    days = range(TRAINED, DAYS)
    traffic = {(FIRST + day) * DAY: (40 if day >= DAYS - 3 else 400, 400.0) for day in days}
    found = signals(replace(watched, traffic={"": traffic}), lived, since=END - 3 * DAY, until=END)
    assert [each for each in found if each.statistic == "rows"] == []


def test_a_movement_that_was_dismissed_does_not_alarm_again(watched: Watched, ruler: Ruler) -> None:
    def moved(by: float) -> Change:
        return lambda rows: {**rows, "Shop.sales": rows["Shop.sales"] + by}

    def of_day(day: int, now: Watched, by: float) -> list[Signal]:
        lived = hours(ruler, {DAYS - 3: moved(1.0), DAYS - 1: moved(by)})
        start = (FIRST + day) * DAY
        return signals(now, lived, since=start, until=start + DAY)

    first = of_day(DAYS - 3, watched, 1.0)
    assert {each.column for each in first} == {"Shop.sales"}
    assert of_day(DAYS - 1, watched, 1.0) != []  # nobody said anything: it alarms again
    heard = replace(watched, dismissed=first)
    assert of_day(DAYS - 3, heard, 1.0) == first  # its own day stays as it was
    assert of_day(DAYS - 1, heard, 1.0) == []
    assert {each.column for each in of_day(DAYS - 1, heard, 3.0)} == {"Shop.sales"}
    other = hours(ruler, {DAYS - 1: lambda rows: without(rows, ["Road.traffic"], 0.3)})
    assert {each.column for each in signals(heard, other, since=END - DAY, until=END)} == {"Road.traffic"}


def test_a_page_that_was_dismissed_does_not_come_again(watched: Watched, ruler: Ruler) -> None:
    def pages(now: Watched, share: float, *, since: int = END - DAY) -> list[Signal]:
        def null(share: float) -> Change:
            return lambda rows: without(rows, ["Road.traffic"], share)

        first, again = (
            dict.fromkeys(range(DAYS - ago, DAYS - ago + 6), each) for ago, each in ((13, null(0.2)), (6, null(share)))
        )
        found = signals(now, hours(ruler, {**first, **again}), since=since, until=since + DAY)
        return [each for each in found if each.channel == CONTRACT]

    seen = pages(watched, 0.2, since=END - 8 * DAY)
    assert {(each.column, each.statistic) for each in seen} == {("Road.traffic", "nulls")}
    assert pages(watched, 0.2) != []
    heard = replace(watched, dismissed=seen)
    assert pages(heard, 0.2) == []
    assert pages(heard, 1.0) != []


def test_a_bundle_without_history_has_a_contract(trained: Reference, ruler: Ruler) -> None:
    old = Watched("shop", trained)
    broken = dict.fromkeys(range(DAYS - 5, DAYS), lambda rows: without(rows, ["Road.traffic"]))
    found = signals(old, hours(ruler, broken), since=END - DAY, until=END)
    assert {(each.channel, each.column) for each in found} == {(CONTRACT, "Road.traffic")}


def test_no_traffic_is_no_signal(watched: Watched) -> None:
    assert signals(watched, [], since=0, until=END) == []
    assert signals(Watched("shop", Reference({})), [], since=0, until=END) == []


def test_the_judged_windows_are_those_with_traffic_and_enough_history(watched: Watched, ruler: Ruler) -> None:
    found = judge(watched, hours(ruler), since=END - 2 * DAY, until=END)
    assert found.days == ((END - 2 * DAY, END - DAY), (END - DAY, END))
    hour = [END + day * DAY + of * HOUR for day in (-2, -1) for of in (9, 17)]
    assert found.hours == tuple((start, start + HOUR) for start in hour)
    new = judge(
        Watched("shop", watched.reference.__class__(watched.reference.columns)), hours(ruler), since=0, until=END
    )
    assert new.days == ()
    assert new.hours


def test_hours_that_were_not_sketched_are_left_out(watched: Watched) -> None:
    bare = Hour(END - HOUR, "", Sketch.empty(()), None)
    assert signals(watched, [bare], since=END - DAY, until=END) == []


def test_spans_of_another_clock_are_no_crash(watched: Watched, ruler: Ruler) -> None:
    """A clock that jumped: predictions of the year 2100 and of 1970 among today's."""
    far = [Hour(0, "", *ruler.measure(rows_of(1))), Hour(50_000 * DAY, "", *ruler.measure(rows_of(2)))]
    found = signals(watched, [*hours(ruler), *far], since=END - DAY, until=END)
    assert all(each.end <= END for each in found)
    assert np.isfinite([each.severity for each in found]).all()


def test_a_model_of_very_many_columns_is_judged_with_joint_summaries_of_some() -> None:
    """Joint summaries grow with the square of their columns; the rest of the columns has channels of its own."""
    wide = [f"V{number % 3}.c{number:03}" for number in range(MOST_PAIRED + 2)]
    rng = np.random.default_rng(2)

    def rows(moved: str = "") -> dict[str, np.ndarray[Any, Any]]:
        return {name: rng.normal(3.0 * (name == moved), 1.0, 25) for name in wide}

    made = profile({name: rng.normal(size=600) for name in wide})
    ruler = Ruler(made, wide)
    assert ruler.measure(rows())[1].columns == tuple(wide[:MOST_PAIRED])
    days = [Day(day * DAY, (day + 1) * DAY, *ruler.measure(rows())) for day in range(60)]
    watched = Watched("shop", msgspec.structs.replace(made, history=pack(days)))
    lived = [Hour(day * DAY, "", *ruler.measure(rows(wide[-1] if day == 65 else ""))) for day in range(60, 66)]
    found = judge(watched, lived, since=65 * DAY, until=66 * DAY)
    assert found.days == ((65 * DAY, 66 * DAY),)
    assert next(each.column for each in found.signals if each.channel == SURPRISE) == wide[-1]
