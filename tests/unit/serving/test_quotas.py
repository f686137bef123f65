"""Quotas: what a declaration takes, whom it limits, what is left, and how counts follow the clock and one another."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.serving import NOW, route
from mainspring.core.errors import Corrupt, Invalid, QuotaExceeded, StorageFull, Unavailable
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, ManualClock, parse_instant
from mainspring.security.model import EVERY_ROLE, Binding, KeyScope, Kind, Principal, Role
from mainspring.security.quota import Price, Quota, period
from mainspring.serving.model import Arm, Endpoint
from mainspring.serving.plane import counts as counting
from mainspring.serving.plane import metering
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.metering import Quotas, name_of

ROWS = Quota("rows", per="day", rows=100)


def caller(id: str = "k1", **given: Any) -> Principal:
    return Principal(id, given.pop("name", "test"), frozenset(KeyScope), **given)


def quotas(*declared: Quota, counts: Counts | None = None, clock: ManualClock | None = None, **changes: Any) -> Quotas:
    made = msgspec.structs.replace(route(Arm("1", "d")), quotas=declared, **changes)
    return Quotas(made, counts or Counts(), clock or ManualClock(NOW))


def passes(of: Quotas, who: Principal, rows: int = 1) -> bool:
    try:
        of.charge(who, rows)
    except QuotaExceeded:
        return False
    return True


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"rows": 0}, "limit of 0"),
        ({"rows": 2.5}, "limit of rows"),
        ({"requests": True}, "limit of requests"),
        ({"cost": -1}, "limit of -1"),
        ({"cost": float("inf")}, "limit of inf"),
        ({"cost": float("nan")}, "limit of nan"),
        ({"cost": "5"}, "limit of cost"),
        ({}, "no limit"),
        ({"rows": 1, "per": "week"}, "per 'week'"),
        ({"rows": 1, "by": "user"}, "by 'user'"),
        ({"rows": 1, "only": "group:a"}, "callers"),
        ({"rows": 1, "only": ["ana"]}, "'ana'"),
    ],
)
def test_a_wrong_declaration_is_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid, match=wrong):
        Quota("q", **given)


def test_money_needs_a_price() -> None:
    with pytest.raises(Invalid, match="no price"):
        Endpoint("e", model="m@1", quotas=[Quota("q", cost=1)])
    with pytest.raises(Invalid, match="price of a row is -1"):
        Price(row=-1)


@pytest.mark.parametrize(
    ("per", "at", "begin", "end"),
    [
        ("second", "2026-02-28T23:59:59.5Z", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z"),
        ("hour", "2026-02-28T23:59:59Z", "2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"),
        ("day", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("month", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("month", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
    ],
)
def test_periods_are_those_of_the_calendar(per: str, at: str, begin: str, end: str) -> None:
    assert period(per, parse_instant(at)) == (parse_instant(begin), parse_instant(end))


def test_a_refusal_says_when_and_what_is_left_and_counts_nothing() -> None:
    of = quotas(Quota("rows", rows=100), Quota("asked", per="minute", requests=3))
    charged = of.charge(caller(), 60)
    assert charged.fields == (("ratelimit", '"rows";r=40;t=86400, "asked";r=2;t=60'),)
    with pytest.raises(QuotaExceeded, match="100 rows a day is spent") as refused:
        of.charge(caller(), 41)
    assert refused.value.retry_after_ms == DAY // 1000
    assert refused.value.fields == (
        ("ratelimit-policy", '"rows";q=100;qu="rows";w=86400'), ("ratelimit", '"rows";r=40;t=86400'),
    )  # fmt: skip
    assert passes(of, caller(), 40)
    assert not passes(of, caller())
    with pytest.raises(Invalid, match="fewer rows"):
        of.charge(caller(), 101)


def test_what_is_refused_is_taken_back_for_every_process(tmp_path: Path) -> None:
    of = quotas(ROWS)
    of.charge(caller(), 100).refund()
    counts, other = Counts(tmp_path / counting.FILE), Counts(tmp_path / counting.FILE)
    two = quotas(ROWS, Quota("asked", requests=1), counts=counts)
    two.charge(caller(), 60)
    assert not passes(two, caller(), 40)  # the rows were counted before the request was refused
    assert passes(quotas(ROWS, counts=other), caller(), 40)
    assert passes(of, caller(), 100)


def test_what_another_process_takes_before_a_lease_is_not_passed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, path = Quota("q", rows=102_400), tmp_path / counting.FILE
    counts, name = Counts(path), name_of(Quota("q", rows=1), "rows", "k1")
    one, two, add, adds = quotas(large, counts=Counts(path)), quotas(large, counts=counts), Counts.add, count()

    def slow(of: Counts, *given: Any) -> int | None:
        if of is counts and next(adds) == 1:  # between its look and its lease
            assert passes(one, caller(), 102_399)
        return add(of, *given)

    monkeypatch.setattr(Counts, "add", slow)
    assert passes(two, caller())
    assert not passes(two, caller())
    assert counts.spent(name, *ends()) == 102_400


def test_a_refund_is_counted_where_another_name_was_given_a_row() -> None:
    counts, of = Counts(), Quota("q", rows=100)
    two = quotas(of, counts=counts)
    charged = two.charge(caller(), 60)
    assert counts._words is not None
    counts._words[counting._TURN] += 2
    charged.refund()
    assert counts.spent(name_of(of, "rows", "k1"), *ends()) == 0
    assert passes(two, caller(), 100)
    assert not passes(two, caller())


def test_a_refund_is_of_its_own_request_and_period() -> None:
    clock = ManualClock(NOW)
    of = quotas(Quota("scores", rows=4, spent="labels"), Quota("all", rows=10), clock=clock)
    first, labels = of.charge(caller(), 4), of.charge(caller(), 2)
    assert (first.labels, labels.labels) == (False, True)
    first.refund()
    labels.refund()  # the scores were not charged for it
    last = of.charge(caller(), 4)
    assert not last.labels
    assert of.charge(caller(), 1).labels
    clock.advance(DAY)
    last.refund()
    assert of.charge(caller(), 5).labels


def test_a_quota_that_cannot_be_counted_answers_no_labels_and_counts_as_soon_as_it_can(tmp_path: Path) -> None:
    path = tmp_path / counting.FILE
    counts = Counts(path)
    of = quotas(Quota("first", requests=1), Quota("scores", rows=10, spent="labels"), counts=counts)
    with Counts(path)._locks.hold(counting.FILE):
        for _ in range(2):
            with pytest.raises(Unavailable):
                of.charge(caller(), 1)
    assert not of.charge(caller(), 1).labels
    with Counts(path)._locks.hold(counting.FILE):
        held = []
        for _ in range(5):
            begun = monotonic()
            with pytest.raises(Unavailable):
                of.charge(caller("other"), 1)
            held.append(monotonic() - begun)
        assert min(held) < 0.04  # by which the event loop is held up; this process may be, too
    assert passes(of, caller("other"))


def test_a_full_disk_takes_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts(tmp_path / counting.FILE)

    def full(*_arguments: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(counting, "_reserve", full)
        patched.setattr(counting, "COLUMNS", 3)
        for _ in range(3):
            with pytest.raises(StorageFull):
                counts.open()
    counts.open()
    assert counts.width == 1


def test_a_name_too_long_for_a_row_is_counted_by_a_hash() -> None:
    counts, clock = Counts(), ManualClock(NOW)
    long, endpoint = Quota("q" * 128, requests=3, by="endpoint"), "e" * 128
    of = quotas(long, counts=counts, clock=clock, endpoint=endpoint)
    assert [passes(of, caller()) for _ in range(4)] == [True, True, True, False]
    (name,) = counts.names()
    assert name == name_of(long, "requests", endpoint)
    assert name != name_of(long, "requests", endpoint[1:])
    assert name.split("\0")[:3] == [long.name, "requests", "day"]
    with pytest.raises(Invalid, match="more than 184"):
        counts.row("q" * 185, NOW)


def test_callers_beyond_those_kept_give_their_leases_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_MOST_CALLERS", 3)
    counts = Counts()
    of, passed = quotas(Quota("all", rows=4096, by="endpoint"), Quota("each", rows=2048), counts=counts), 0
    while passes(of, caller(f"k{passed % 4}")):
        passed += 1
    assert passed == 4096
    of = quotas(Quota("large", rows=102_400), counts=counts)
    of.charge(caller(), 1)
    of.close()
    assert counts.spent(name_of(Quota("large", rows=1), "rows", "k1"), *ends()) == 1


def ends() -> tuple[int, int]:
    end = period("day", NOW)[1]
    return end, end + DAY


def test_a_row_that_is_given_away_while_it_is_found_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_near", lambda _name: iter([7, 8]))
    one, two = Counts(tmp_path / counting.FILE), Counts(tmp_path / counting.FILE)
    two.add(two.row("a", 0), 1, 10, 20)
    find = Counts._find

    def slow(counts: Counts, name: str) -> int | None:
        found = find(counts, name)
        if counts is two:
            monkeypatch.setattr(Counts, "_find", find)
            one.add(one.row("b", 50), 3, 100, 200)
        return found

    monkeypatch.setattr(Counts, "_find", slow)
    assert two.add(two.row("a", 50), 5, 100, 200) is None
    assert two.add(two.row("a", 50), 5, 100, 200) == 5
    assert one.spent("b", 100, 200) == 3


def test_thousands_of_names_find_a_row() -> None:
    counts = Counts()
    for number in range(6500):
        counts.add(counts.row(f"caller {number}", 0), 1, 10, 20)


def test_callers_share_a_count_as_declared() -> None:
    ana, other = (caller(id, owner="ana") for id in ("k1", "k2"))
    alone = caller("k3")
    for by, together in (("key", False), ("owner", True), ("endpoint", True)):
        of = quotas(Quota("q", rows=100, by=by))  # type: ignore[arg-type]
        assert passes(of, ana, 100)
        assert passes(of, other) is not together
        assert passes(of, alone) is (by != "endpoint")


def test_only_the_named_callers_are_limited() -> None:
    of = quotas(Quota("q", requests=1, only=("group:trial", "role:viewer", "key:demo", "service:nightly")))
    limited = (
        caller("a", groups=frozenset({"trial"})),
        caller("b", owner="ana", roles=frozenset({Binding(Role.VIEWER)})),
        caller("b2", owner="ana", roles=frozenset({Binding(Role.VIEWER, "endpoint/late-arrival")})),
        caller("c", name="demo"),
        caller("d", name="nightly", kind=Kind.SERVICE),
    )
    for each in limited:
        assert passes(of, each)
        assert not passes(of, each)
    free = caller("e", name="nightly", groups=frozenset({"demo"}))
    assert of.charge(free, 1).fields == ()
    others = Binding(Role.VIEWER, "endpoint/other"), Binding(Role.VIEWER, "model/late-arrival")
    assert of.charge(caller("f", owner="ana", roles=frozenset(others)), 1).fields == ()
    ownerless = Quota("q", requests=1, only=("role:administrator",))
    assert quotas(ownerless).charge(caller("g", roles=EVERY_ROLE), 1).fields == ()
    # A caller is judged anew when their groups change.
    assert passes(of, caller("e", name="nightly", groups=frozenset({"trial"})))
    assert not passes(of, caller("e", name="nightly", groups=frozenset({"trial"})))


def test_money_is_counted_by_the_price() -> None:
    of = quotas(Quota("q", per="month", cost=1.0), price=Price(row=0.001, request=0.1))
    assert passes(of, caller(), 800)
    assert not passes(of, caller(), 100)
    assert not passes(of, caller(), 1)  # 0.1 is left, and it costs 0.101
    assert passes(quotas(Quota("q", cost=1.0), price=Price(row=0.001)), caller(), 1000)


def test_a_large_limit_is_leased_in_small_parts(tmp_path: Path) -> None:
    path, large = tmp_path / counting.FILE, Quota("q", rows=102_400)
    counts, other = Counts(path), Counts(path)
    one, two = (quotas(large, counts=each) for each in (counts, other))
    name, end = name_of(large, "rows", "k1"), period("day", NOW)[1]
    assert one.charge(caller(), 1).fields == (("ratelimit", '"q";r=102399;t=86400'),)
    for _ in range(100):
        one.charge(caller(), 1)
    assert other.spent(name, end, end + DAY) == 101
    one.charge(caller(), 1)
    assert other.spent(name, end, end + DAY) == 202
    passed = 102
    for rows in (10_000, 1000, 100, 10, 1):
        while passes(two, caller(), rows):
            passed += rows
    assert passed == 102_400 - 100  # the lease of the first
    while passes(one, caller()):
        passed += 1
    assert passed == 102_400


ASKED = st.tuples(st.integers(0, 2), st.integers(1, 20), st.booleans(), st.sampled_from([0, SECOND // 2]))


@given(steps=st.lists(ASKED, max_size=20))
@settings(max_examples=examples(gate=25, deep=3000), deadline=None)
def test_keys_that_share_counts_use_them_up_exactly_in_one_process(steps: Sequence[tuple[int, int, bool, int]]) -> None:
    """Three keys of two accounts; requests of all sizes, some refused after they were counted."""
    clock = ManualClock(NOW)
    declared = Quota("all", rows=300, by="endpoint"), Quota("each", requests=60, rows=180, by="owner")
    callers = caller("k1", owner="ana"), caller("k2", owner="ana"), caller("k3", owner="ben")
    rows_of, requests_of = Counter[str](), Counter[str]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metering, "_LEASES", 3)
        of = quotas(*declared, clock=clock)
        for who, rows, taken_back, wait in [*steps, *((number % 3, 3, False, 0) for number in range(120))]:
            clock.advance(wait)
            owner = callers[who].account
            fits = rows_of.total() + rows <= 300 and rows_of[owner] + rows <= 180 and requests_of[owner] < 60
            try:
                charge = of.charge(callers[who], rows)
            except QuotaExceeded:
                assert not fits
                continue
            assert fits
            if taken_back:
                charge.refund()
            else:
                rows_of[owner] += rows
                requests_of[owner] += 1


def test_a_request_like_the_last_one_looks_at_no_meter_and_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NOW + MINUTE - SECOND // 2)
    of = quotas(Quota("rows", per="minute", rows=102_400), clock=clock)
    first = of.charge(caller(), 3, 7)
    clock.advance(SECOND // 2)
    with monkeypatch.context() as patched:
        patched.setattr(metering.Account, "charge", None)
        patched.setattr(clock, "now", None)
        assert of.charge(caller(), 3, 7) is of.charge(caller(), 3, 6 + SECOND // 2) is first
        assert of.charge(caller(), 1, 7).rows == 1
    assert '"rows";r=102397;' in of.charge(caller(), 3, 7 + SECOND // 2).fields[0][1]  # of the next minute


def test_one_quota_on_several_endpoints_counts_together() -> None:
    counts = Counts()
    one, two = (quotas(ROWS, counts=counts, endpoint=name) for name in ("one", "two"))
    assert passes(one, caller(), 99)
    assert passes(two, caller(), 1)
    assert not passes(one, caller())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counts, Counts]:
    path = tmp_path_factory.mktemp("two") / counting.FILE
    return Counts(path), Counts(path)


NUMBERS = count()
LEASE = 5  # what a process may hold of the limit
STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0, SECOND, HOUR, DAY - HOUR, DAY, 40 * DAY, -SECOND, -HOUR, -DAY]),
              st.integers(1, 60)),
    max_size=40,
)  # fmt: skip


@given(steps=STEPS)
@settings(max_examples=examples(gate=150, deep=3000), deadline=None)
def test_a_day_gives_no_more_than_its_limit_and_no_less_whatever_the_clock_does(
    both: tuple[Counts, Counts], steps: Sequence[tuple[int, int, int]]
) -> None:
    """Two processes; the clock goes forth at will, and back to up to a day before its latest."""
    clock, fresh = ManualClock(NOW + HOUR), Quota(f"q{next(NUMBERS)}", rows=100)
    sides = [quotas(fresh, counts=each, clock=clock) for each in both]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metering, "_LEASES", 100 // LEASE)
        spend(sides, clock, steps)


def spend(sides: Sequence[Quotas], clock: ManualClock, steps: Sequence[tuple[int, int, int]]) -> None:
    """Take the steps, and compare each outcome with the limit."""
    granted: Counter[int] = Counter()  # by day
    passed, before, highest, backs = 0, NOW // DAY, NOW, 0
    for who, jump, rows in steps:
        clock.advance(max(jump, highest - DAY - clock.now()))
        highest, backs = max(highest, clock.now()), backs + (jump < 0)
        day = clock.now() // DAY
        if day > before:  # a jump over the end of a day begins another
            passed = 0
        before = day
        if passes(sides[who], caller(), rows):
            passed += rows
            granted[day] += rows
            assert passed <= 100
        else:  # where the clock was set back, what was spent around it may count, and a lease is lost each time
            near = range(day - 1, day + 2) if backs else (day,)
            assert sum(granted[each] for each in near) + rows > 100 - LEASE * (1 + 2 * backs)


def test_counts_outlive_their_process_and_its_column_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "slots" / counting.FILE
    first = Counts(path)
    assert passes(quotas(ROWS, counts=first), caller(), 60)
    second = Counts(path)
    assert passes(quotas(ROWS, counts=second), caller(), 30)
    first.close()
    third = Counts(path)
    of = quotas(ROWS, counts=third)
    assert passes(of, caller(), 10)
    assert not passes(of, caller())
    assert third._own < second._own
    end = period("day", NOW)[1]
    reader = Counts(path, writes=False)
    assert [name.split("\0")[0] for name in reader.names()] == ["rows"]
    assert reader.spent(name_of(ROWS, "rows", "k1"), end, end + DAY) == 100


def test_a_full_table_gives_away_the_rows_of_periods_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_NEAR", 1)  # a name may have one row alone
    monkeypatch.setattr(counting, "_near", lambda _name: iter([7]))
    counts, clock = Counts(), ManualClock(NOW)
    of = quotas(Quota("q", per="minute", rows=10), counts=counts, clock=clock)
    assert passes(of, caller("a"), 10)
    with pytest.raises(Unavailable, match="Too many callers"):
        of.charge(caller("b"), 1)
    clock.advance(MINUTE)
    assert passes(of, caller("b"), 10)
    with pytest.raises(Unavailable):
        of.charge(caller("a"), 1)
    clock.advance(MINUTE)
    assert passes(of, caller("a"), 10)
    assert not passes(of, caller("a"))


@pytest.mark.parametrize("content", [b"short", bytes([9]) * counting._SIZE])
def test_another_file_in_its_place_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / counting.FILE
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="delete"):
        quotas(ROWS, counts=Counts(path)).charge(caller(), 1)
