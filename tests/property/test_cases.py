"""The cases that decide whether point in time holds, one test each: offline by DuckDB, online from every kind of store.

Instants are random microseconds, on and around the edges of hops. Case 15, erasure, is the whole platform's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from kit.everywhere import KEY, SCHEMA, TIME, Everywhere, view
from kit.oracle import DAY, HOUR, MINUTE
from mainspring.core.errors import InvalidData, Unavailable
from mainspring.core.time import ManualClock, parse_duration
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import hop
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from mainspring.features.ports import OnlineStore

Stores = Callable[[], dict[str, OnlineStore]]
FOLD = 1_383_458_400_000_000  # New York's clocks went back at that instant, 06:00 UTC on 3 November 2013
WINDOWS = ["5m", "1h", "12h", "24h", "12d", "30d"]

edges = st.integers(0, 400).map(lambda n: FOLD + n * 5 * MINUTE)
near = st.sampled_from([0, 0, 1, -1, MINUTE])
instants = st.one_of(st.builds(lambda at, by: at + by, edges, near), st.integers(FOLD, FOLD + 2 * DAY))
moments = st.one_of(st.sampled_from([1, MINUTE, 5 * MINUTE, HOUR]), st.integers(1, 6 * HOUR))  # of time
behinds = st.one_of(st.sampled_from([0, 1, 5 * MINUTE, HOUR]), st.integers(0, 2 * HOUR))
CASE = settings(
    max_examples=examples(gate=2, deep=12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Examples:
    """How many random examples were run; printed at the end."""

    cases = 0


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\ncases of point in time: {Examples.cases} random examples, each offline and in every store")


def everywhere(features: Any, stores: Stores, behind: int = 0) -> Everywhere:
    Examples.cases += 1
    return Everywhere(features, stores(), behind=behind)


@CASE
@given(event=instants, known=st.tuples(moments, moments), behind=behinds, order=st.permutations([0, 1, 2]))
def test_tie_event_time(
    online_stores: Stores, event: int, known: tuple[int, int], behind: int, order: list[int]
) -> None:
    first, second = event + min(known), event + max(known)
    rows = [(event, 1.0, first, KEY), (event, 2.0, second, KEY), (event, 3.0, second, KEY)]
    arriving = [rows[n] for n in order]
    world = everywhere(view(x=ms.last("x")), online_stores, behind)
    world.land_all(arriving)
    if first < second:
        assert world.read(second) == {"x": 1.0}
        assert world.read(second + 1) == {"x": next(x for _, x, known, _ in arriving[::-1] if known == second)}
    else:
        assert world.read(second + 1) == {"x": arriving[-1][1]}


@CASE
@given(event=instants, after=moments, behind=behinds)
def test_late_correction_invisible(online_stores: Stores, event: int, after: int, behind: int) -> None:
    world = everywhere(view(x=ms.last("x"), newest=ms.last("x", window="24h")), online_stores, behind)
    world.land(event, 5.0)
    world.land(event, 9.0, event + after)
    assert world.read(event + after)["x"] == 5.0
    assert world.read(event + after + 1) == {"x": 9.0, "newest": 9.0}
    assert world.read(event + after + 2) == {"x": 9.0, "newest": 9.0}


@CASE
@given(event=instants, before=moments, after=moments, behind=behinds)
def test_late_old_event(online_stores: Stores, event: int, before: int, after: int, behind: int) -> None:
    features = view(x=ms.last("x"), newest=ms.last("x", window="24h"), oldest=ms.first("x", window="24h"))
    world = everywhere(features, online_stores, behind)
    world.land(event, 5.0)
    world.land(event - before, 7.0, event + after)
    assert world.read(event + after)["x"] == 5.0
    assert world.read(event + after + 1) == {"x": 5.0, "newest": 5.0, "oldest": 7.0}


@CASE
@given(event=instants, ttl=moments, behind=behinds)
def test_ttl_boundary(online_stores: Stores, event: int, ttl: int, behind: int) -> None:
    world = everywhere(view(x=ms.last("x", ttl=ttl)), online_stores, behind)
    world.land(event, 5.0)
    assert (world.read(event + ttl), world.statuses) == ({"x": 5.0}, {"x": "PRESENT"})
    assert (world.read(event + ttl + 1), world.statuses) == ({"x": None}, {"x": "EXPIRED"})


@CASE
@given(event=instants, before=moments, ttl=moments, behind=behinds)
def test_expired_no_fallback(online_stores: Stores, event: int, before: int, ttl: int, behind: int) -> None:
    world = everywhere(view(x=ms.last("x", ttl=ttl)), online_stores, behind)
    world.land(event - before, 1.0)
    world.land(event, 2.0)
    world.land(event - before, 3.0, event + ttl)  # it arrives late, so it does not count
    assert world.read(event + ttl) == {"x": 2.0}
    assert (world.read(event + ttl + 1), world.statuses) == ({"x": None}, {"x": "EXPIRED"})


@CASE
@given(event=instants, window=st.sampled_from(WINDOWS), behind=behinds)
def test_label_equals_event(online_stores: Stores, event: int, window: str, behind: int) -> None:
    features = view(n=ms.count(window=window), x=ms.last("x"), newest=ms.last("x", window=window))
    world = everywhere(features, online_stores, behind)
    world.land(event, 5.0)
    assert world.read(event - 1) == {"n": 0, "x": None, "newest": None}
    assert world.read(event) == {"n": 0, "x": None, "newest": None}
    assert world.read(event + 1) == {"n": 1, "x": 5.0, "newest": 5.0}


@CASE
@given(event=instants, window=st.sampled_from(WINDOWS), behind=behinds)
def test_sawtooth_tail(online_stores: Stores, event: int, window: str, behind: int) -> None:
    width = parse_duration(window)
    step = hop(width)
    leaves = (event // step + 1) * step + width  # the first instant whose window begins after the event
    world = everywhere(view(n=ms.count(window=window), sum=ms.sum("x", window=window)), online_stores, behind)
    world.land(event, 5.0)
    world.land(leaves - step, 1.0)
    assert [world.read(at)["n"] for at in (leaves - 1, leaves, leaves + 1)] == [2, 1, 1]
    assert world.read(leaves + step - 1) == {"n": 1, "sum": 1.0}


@CASE
@given(event=instants, behind=behinds)
def test_non_invertible_expiry(online_stores: Stores, event: int, behind: int) -> None:
    features = view(
        max=ms.max("x", window="1h"), min=ms.min("x", window="1h"), oldest=ms.first("x", window="1h"),
        newest=ms.last("x", window="1h"), two=ms.last_k("x", 2, window="1h"), median=ms.quantile("x", 0.5, window="1h"),
        kinds=ms.distinct(ms.col("x").cast(ms.Int64), window="1h"),
        usual=ms.top_k(ms.col("x").cast(ms.Int64), 1, window="1h"), last=ms.last("x", ttl="1h"),
    )  # fmt: skip
    world = everywhere(features, online_stores, behind)
    for number, x in enumerate([50.0, 1.0, 3.0]):
        world.land(event + number * 10 * MINUTE, x)
    leaves = [(event + number * 10 * MINUTE) // (5 * MINUTE) * 5 * MINUTE + HOUR + 5 * MINUTE for number in range(3)]

    def said(now: int) -> list[Any]:
        found = world.read(now)
        return [
            found[name] for name in ("max", "min", "oldest", "newest", "two_1", "two_2", "median", "kinds", "usual_1")
        ]

    assert said(leaves[0] - 1) == [50.0, 1.0, 50.0, 3.0, 3.0, 1.0, 3.0, 3, 1]
    assert said(leaves[0]) == [3.0, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 2, 1]
    assert said(leaves[1]) == [3.0, 3.0, 3.0, 3.0, 3.0, None, 3.0, 1, 3]
    assert said(leaves[2]) == [None, None, None, None, None, None, None, 0, None]
    assert world.statuses["last"] == "EXPIRED"


@CASE
@given(event=instants, base=st.sampled_from([1e9, -1e9, 1.0, 1e15]), seed=st.integers(0, 99), behind=behinds)
def test_variance_cancellation(online_stores: Stores, event: int, base: float, seed: int, behind: int) -> None:
    rng = random.Random(seed)
    values = [base + rng.uniform(-1, 1) for _ in range(300)]
    world = everywhere(view(v=ms.variance("x", window="3h"), sd=ms.std("x", window="3h")), online_stores, behind)
    times = [event + rng.randrange(2 * HOUR) for _ in values]
    world.land_all([(at, x, at, KEY) for at, x in zip(times, values, strict=True)])
    mean = math.fsum(value - base for value in values) / len(values)
    wanted = math.fsum((value - base - mean) ** 2 for value in values) / len(values)
    found = world.read(event + 2 * HOUR)
    assert found["v"] == pytest.approx(wanted, rel=1e-9)
    assert found["sd"] == pytest.approx(wanted**0.5, rel=1e-9)


@CASE
@given(event=instants, behind=behinds)
def test_empty_vs_null_vs_zero(online_stores: Stores, event: int, behind: int) -> None:
    whole = ms.col("x").cast(ms.Int64)
    features = view(
        n=ms.count(window="1h"), known=ms.count("x", window="1h"), kinds=ms.distinct(whole, window="1h"),
        sum=ms.sum("x", window="1h"), mean=ms.mean("x", window="1h"), newest=ms.last("x", window="1h"),
        median=ms.quantile("x", 0.5, window="1h"), usual=ms.top_k(whole, 1, window="1h"),
        filled=ms.mean("x", window="1h", default=-1.0),
    )  # fmt: skip
    world = everywhere(features, online_stores, behind)
    for number, x in enumerate([None, 0.0, math.nan]):
        world.land(event + number * 2 * HOUR, x)
    nothing = {
        "n": 0,
        "known": 0,
        "kinds": 0,
        **dict.fromkeys(("sum", "mean", "newest", "median", "usual_1")),
        "filled": -1.0,
    }
    assert world.read(event) == nothing
    assert set(world.statuses.values()) == {"MISSING"}
    assert world.read(event + 1) == {**nothing, "n": 1}
    assert world.statuses == {**dict.fromkeys(nothing, "NULL"), **dict.fromkeys(("n", "known", "kinds"), "PRESENT")}
    zero = {
        "n": 1,
        "known": 1,
        "kinds": 1,
        "usual_1": 0,
        **dict.fromkeys(("sum", "mean", "newest", "median", "filled"), 0.0),
    }
    assert world.read(event + 2 * HOUR + 1) == zero
    assert set(world.statuses.values()) == {"PRESENT"}
    found = world.read(event + 4 * HOUR + 1)
    assert (found["n"], found["known"], found["kinds"], found["usual_1"]) == (1, 1, 0, None)
    assert all(math.isnan(found[name]) for name in ("sum", "mean", "newest", "median", "filled"))
    assert world.read(event + 4 * HOUR + 1, ("never", "seen")) == nothing
    assert set(world.statuses.values()) == {"MISSING"}


@CASE
@given(event=instants, behind=behinds)
def test_composite_key_collision(online_stores: Stores, event: int, behind: int) -> None:
    world = everywhere(view(x=ms.last("x"), n=ms.count(window="1h")), online_stores, behind)
    keys: list[tuple[Any, Any]] = [("1", "11"), ("11", "1"), ("111", ""), ("", "111"), ("1\x1f1", "1"), ("1", "\x1f11")]
    nulls: list[tuple[Any, Any]] = [(None, "1"), ("1", None), (None, None)]
    world.land_all([(event, float(n), event, key) for n, key in enumerate([*keys, *nulls])])
    for n, key in enumerate(keys):
        assert world.read(event + 1, key) == {"x": float(n), "n": 1}
    for key in nulls:
        assert world.read(event + 1, key) == {"x": None, "n": 0}
        assert set(world.statuses.values()) == {"MISSING"}


@CASE
@given(
    by=st.integers(-HOUR, HOUR),
    behind=behinds,
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "+05:30", "Australia/Lord_Howe"]),
)
def test_timezone_dst_precision(online_stores: Stores, by: int, behind: int, unit: str, zone: str) -> None:
    # 01:30 was twice that night in New York, an hour apart; `by` is anywhere in the two hours.
    step = {"s": 1_000_000, "ms": 1000, "us": 1, "ns": 1}[unit]
    now = (FOLD + by) // step * step
    world = everywhere(view(x=ms.last("x"), n=ms.count(window="1h")), online_stores, behind)
    world.land_all([(now - HOUR, 1.0, now - HOUR, KEY), (now, 2.0, now, KEY), (now + 1, 3.0, now + 1, KEY)])
    wanted = world.read(now)
    assert wanted == {"x": 1.0, "n": 1}
    at = pa.array([now], TIME).cast(pa.timestamp(unit, tz=zone))
    asked = pa.table({"a": [KEY[0]], "b": [KEY[1]], "_at": at})
    (row,) = point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA).to_pylist()
    assert {name: row[f"Facts.{name}"] for name in wanted} == wanted
    naive = pa.table({"a": [KEY[0]], "b": [KEY[1]], "_at": at.cast(pa.timestamp(unit))})
    with pytest.raises(InvalidData, match="_at"):
        point_in_time(naive, [world.view], world.lake.scan, schema=SCHEMA)


class Failing:
    """A store that does not answer from its n-th change on, until it is mended: as if its writer had died there."""

    def __init__(self, store: OnlineStore, changes: int) -> None:
        self._store = store
        self.left = changes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("write", "advance", "clear", "swap", "replace"):
            return found

        def change(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Unavailable("The writer died.")
            return found(*arguments, **named)

        return change


RUNNING = view(n=ms.count(window="24h"), sum=ms.sum("x", window="24h"), sd=ms.std("x", window="24h"),
               newest=ms.last_k("x", 2, window="24h"), median=ms.quantile("x", 0.5, window="24h"))  # fmt: skip
PEOPLE = [(str(n), "") for n in range(5)]


def landed(world: Everywhere, rng: random.Random, event: int, rows: int) -> None:
    times = [event + rng.randrange(6 * HOUR) for _ in range(rows)]
    world.land_all([(at, float(rng.randrange(9)), at + rng.randrange(HOUR), rng.choice(PEOPLE)) for at in times])


def states(store: Any) -> list[Any]:
    return [state and state.payload for state in store.read([(slot(RUNNING), encode_key(key)) for key in PEOPLE])]


@settings(CASE, max_examples=examples(gate=1, deep=6))
@given(event=instants, seed=st.integers(0, 999), dies=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_replay_crash_idempotent(online_stores: Stores, event: int, seed: int, dies: list[int]) -> None:
    rng = random.Random(seed)
    world = everywhere(RUNNING, online_stores)
    clock = ManualClock()
    stores = {**world.stores}
    for step, at in enumerate(dies):
        landed(world, rng, event + step * HOUR, 30)
        clock.set(event + (step + 7) * HOUR)
        for store in stores.values():
            failing: Any = Failing(store, at)
            for _ in range(2):  # a new process each time; the second one lives
                materialiser = Materialiser(world.lake.scan, failing, clock, entities_at_once=2)
                try:
                    materialiser.run(RUNNING, horizon=HOUR)
                except Unavailable:
                    failing.left = 10**9
                materialiser.close()
            materialiser = Materialiser(world.lake.scan, store, clock)
            materialiser.run(RUNNING, horizon=HOUR)  # and once too often
            materialiser.close()
    once = MemoryOnlineStore()
    materialiser = Materialiser(world.lake.scan, once, clock)
    materialiser.run(RUNNING, horizon=HOUR)
    materialiser.close()
    for name, store in stores.items():
        assert states(store) == states(once), name


@settings(CASE, max_examples=examples(gate=1, deep=8))
@given(event=instants, seed=st.integers(0, 999))
def test_rebalance_backfill_overlap(online_stores: Stores, event: int, seed: int) -> None:
    rng = random.Random(seed)
    world = everywhere(RUNNING, online_stores)
    clock = ManualClock()
    live = {
        name: Materialiser(world.lake.scan, store, clock, entities_at_once=2) for name, store in world.stores.items()
    }
    now = event
    for step in range(3):
        landed(world, rng, event + step * HOUR, 20)  # the live stream
        if step == 1:
            landed(world, rng, event - 12 * HOUR, 40)  # what was missing of the past
        now = event + (step + 7) * HOUR
        clock.set(now)
        for name, store in world.stores.items():
            live[name].run(RUNNING, horizon=HOUR)
            if step == 1:  # beside the live one, and over the same entities
                backfill = Materialiser(world.lake.scan, store, clock, entities_at_once=3)
                backfill.run(RUNNING, horizon=HOUR)
                backfill.close()
    columns = {"a": [key[0] for key in PEOPLE], "b": [key[1] for key in PEOPLE]}
    at = [now, now + rng.randrange(HOUR)]
    for moment in at:
        asked = pa.table({**columns, "_at": pa.array([moment] * len(PEOPLE), TIME)})
        wanted = point_in_time(asked, [RUNNING], world.lake.scan, schema=SCHEMA)
        for name, store in world.stores.items():
            found = OnlineReader([RUNNING], store).read(columns, moment).features
            for full, values in found.items():
                assert values == pytest.approx(wanted.column(full).to_pylist(), rel=1e-9, nan_ok=True), (name, full)
    for materialiser in live.values():
        materialiser.close()


@CASE
@given(event=instants, after=moments, window=st.sampled_from(["1h", "24h", "30d"]), behind=behinds)
def test_late_event_in_window(online_stores: Stores, event: int, after: int, window: str, behind: int) -> None:
    features = view(n=ms.count(window=window), kinds=ms.distinct(ms.col("x") > 0, window=window))
    world = everywhere(features, online_stores, behind)
    world.land(event, 1.0, event + after)
    step, width = hop(parse_duration(window)), parse_duration(window)
    leaves = (event // step + 1) * step + width
    assert world.read(event + after) == {"n": 0, "kinds": 0}
    for now in (event + after + 1, event + after + 2):
        assert world.read(now) == {"n": int(now < leaves), "kinds": int(now < leaves)}


def test_every_order_of_arrival_gives_one_result(online_stores: Stores) -> None:
    rows = [(FOLD, 1.0, FOLD, KEY), (FOLD + 1, 2.0, FOLD + MINUTE, KEY), (FOLD - HOUR, 3.0, FOLD + 2 * MINUTE, KEY)]
    features = view(x=ms.last("x"), two=ms.last_k("x", 2, window="24h"), first=ms.first("x", window="24h"))
    for arriving in permutations(rows):
        world = everywhere(features, online_stores)
        world.land_all(list(arriving))
        assert world.read(FOLD + MINUTE + 1) == {"x": 2.0, "two_1": 2.0, "two_2": 1.0, "first": 1.0}
        assert world.read(FOLD + 2 * MINUTE + 1) == {"x": 2.0, "two_1": 2.0, "two_2": 1.0, "first": 3.0}
