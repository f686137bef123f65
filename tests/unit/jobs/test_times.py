"""When schedules are due, against a walk over every minute."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, parse_instant, to_datetime
from mainspring.jobs.times import Every, parse_when

START = parse_instant("2023-12-30T22:00:00Z")


def numbers(least: int, most: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    """A field, and what it means, each made in its own way."""
    one = st.integers(least, most).map(lambda at: (str(at), {at}))
    some = st.tuples(st.integers(least, most), st.integers(least, most), st.integers(1, 9)).map(
        lambda t: (f"{min(t[:2])}-{max(t[:2])}/{t[2]}", {at for at in range(min(t[:2]), max(t[:2]) + 1)
                                                          if (at - min(t[:2])) % t[2] == 0})
    )  # fmt: skip
    every = st.integers(1, 9).map(lambda n: (f"*/{n}", {at for at in range(least, most + 1) if (at - least) % n == 0}))
    return st.one_of(
        st.just(("*", set(range(least, most + 1)))),
        one,
        every,
        st.lists(one | some, min_size=1, max_size=3).map(
            lambda parts: (",".join(text for text, _ in parts), set().union(*(each for _, each in parts)))
        ),
    )


@given(numbers(0, 59), numbers(0, 23), numbers(1, 31), numbers(1, 12), numbers(0, 7), st.integers(0, 50_000))
def test_cron_is_due_where_a_walk_over_the_minutes_finds_it(minute, hour, day, month, weekday, offset) -> None:
    assume(min(day[1]) <= 29 or month[1] - {2})  # else it may be never
    assume(min(day[1]) <= 30 or month[1] - {2, 4, 6, 9, 11})
    when = parse_when(" ".join(field[0] for field in (minute, hour, day, month, weekday)))
    both = day[0][0] != "*" and weekday[0][0] != "*"

    def due(at: int) -> bool:
        moment = to_datetime(at)
        on_day, on_weekday = moment.day in day[1], (moment.weekday() + 1) % 7 in {each % 7 for each in weekday[1]}
        on = on_day or on_weekday if both else on_day and on_weekday
        return moment.minute in minute[1] and moment.hour in hour[1] and moment.month in month[1] and on

    now = START + offset * MINUTE + 7 * SECOND
    found = when.next(now)
    assert due(found)
    assert found > now
    assert not any(due(at) for at in range(now // MINUTE * MINUTE + MINUTE, min(found, now + 3 * DAY), MINUTE))
    assert when.last(found) == found
    assert when.last(found + MINUTE - 1) == found
    assert when.last(found - 1) <= now
    last = when.last(now)
    assert due(last)
    assert when.next(last) == found


def test_leap_days_and_the_turn_of_the_year() -> None:
    leap = parse_when("0 12 29 2 *")
    assert to_datetime(leap.next(START)) == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert to_datetime(leap.last(START)) == datetime(2020, 2, 29, 12, tzinfo=UTC)
    after = parse_instant("2096-03-01")  # 2100 is not a leap year
    assert to_datetime(leap.next(after)) == datetime(2104, 2, 29, 12, tzinfo=UTC)
    assert to_datetime(leap.last(parse_instant("2104-02-28"))) == datetime(2096, 2, 29, 12, tzinfo=UTC)
    assert to_datetime(parse_when("0 0 29 2 */7").next(after)) == datetime(2128, 2, 29, tzinfo=UTC)  # a Sunday
    assert to_datetime(parse_when("0 0 1 1 *").next(START)) == datetime(2024, 1, 1, tzinfo=UTC)
    assert to_datetime(parse_when("30 3 * * 1").next(START)) == datetime(2024, 1, 1, 3, 30, tzinfo=UTC)


def test_every_so_often_is_the_same_wherever_it_is_asked() -> None:
    assert parse_when("15m") == Every(15 * MINUTE)
    assert parse_when("1d").last(START) == parse_instant("2023-12-30")
    assert parse_when("1d").next(parse_instant("2023-12-30")) == parse_instant("2023-12-31")
    assert str(parse_when("90m")) == "every 1h 30m"
    assert Every(HOUR).last(-1) == -HOUR


@pytest.mark.parametrize(
    "text",
    ["", "soon", "0s", "999ms", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
     "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "1,,2 * * * *", "0 0 30 2 *", "-1 * * * *", "1- * * * *"],
)  # fmt: skip
def test_what_says_not_when_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_when(text)
