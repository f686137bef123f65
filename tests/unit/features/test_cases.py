"""The cases of the point-in-time semantics, each by hand, offline and online. Random ones: tests/property."""

from __future__ import annotations

import math
import random
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import SCHEMA, STATION, World, instant, train, view
from mainspring.core.errors import InvalidData
from mainspring.data.model import Source
from mainspring.features.model import Entity
from mainspring.features.offline import point_in_time

pytestmark = pytest.mark.slow


def test_a_tie_in_event_time_goes_to_the_latest_record_then_to_the_latest_arrival() -> None:
    rows = [train("10:00", 1.0, "10:00"), train("10:00", 2.0, "10:05"), train("10:00", 3.0, "10:05")]
    for order in permutations(rows[:2]):
        world = World(view(delay=ms.last("delay")), [*order])
        assert world.both("10:05") == {"delay": 1.0}
        assert world.both(instant("10:05") + 1) == {"delay": 2.0}
    assert World(view(delay=ms.last("delay")), rows).both("11:00") == {"delay": 3.0}
    assert World(view(delay=ms.last("delay")), [rows[2], rows[1], rows[0]]).both("11:00") == {"delay": 2.0}


def test_a_late_correction_is_used_from_when_it_was_recorded() -> None:
    world = World(view(delay=ms.last("delay")), [train("10:00", 5.0), train("10:00", 9.0, "12:00")])
    assert world.both("12:00") == {"delay": 5.0}
    assert world.both(instant("12:00") + 1) == {"delay": 9.0}


def test_an_older_event_that_arrives_later_never_replaces_a_newer_one() -> None:
    world = World(view(delay=ms.last("delay"), n=ms.count(window="6h")), [train("10:00", 5.0)])
    assert world.both("10:30") == {"delay": 5.0, "n": 1}
    world.land(train("09:00", 7.0, "11:00"))
    assert world.both("11:30") == {"delay": 5.0, "n": 2}


def test_an_age_of_exactly_the_ttl_is_valid() -> None:
    world = World(view(delay=ms.last("delay", ttl="1h")), [train("10:00", 5.0)])
    assert world.both("11:00") == {"delay": 5.0}
    assert world.statuses("11:00") == {"Trains.delay": "PRESENT"}
    assert world.both(instant("11:00") + 1) == {"delay": None}
    assert world.statuses(instant("11:00") + 1) == {"Trains.delay": "EXPIRED"}


def test_when_the_newest_row_has_expired_no_older_one_is_used() -> None:
    # The newest by the rule is the event of 10:00; the correction of 09:50 that arrived later does not count.
    world = World(view(delay=ms.last("delay", ttl="30m")), [train("10:00", 5.0), train("09:50", 7.0, "10:40")])
    assert world.both("10:30") == {"delay": 5.0}
    assert world.both("10:41") == {"delay": None}
    assert world.statuses("10:41") == {"Trains.delay": "EXPIRED"}


def test_an_event_at_the_instant_is_outside_a_window_and_outside_a_last_value() -> None:
    world = World(view(n=ms.count(window="1h"), delay=ms.last("delay")), [train("10:00", 5.0)])
    assert world.both(instant("10:00") - 1) == {"n": 0, "delay": None}
    assert world.both("10:00") == {"n": 0, "delay": None}
    assert world.both(instant("10:00") + 1) == {"n": 1, "delay": 5.0}


def test_a_window_rounds_down_at_its_tail() -> None:
    world = World(view(n=ms.count(window="1h"), day=ms.count(window="24h")), [train("10:02", 5.0)])
    # The window that ends at 11:04:59.999999 begins at 10:00, the one that ends at 11:05 begins at 10:05.
    edge = instant("11:05")
    assert [world.both(at)["n"] for at in (edge - 1, edge, edge + 1)] == [1, 0, 0]
    edge = instant("2013-03-06T11:00:00Z")
    assert [world.both(at)["day"] for at in (edge - 1, edge, edge + 1)] == [1, 0, 0]


def test_extremes_fall_when_what_made_them_leaves() -> None:
    features = view(top=ms.max("delay", window="1h"), low=ms.min("delay", window="1h"), sd=ms.std("delay", window="1h"))
    world = World(features, [train("10:00", 50.0), train("10:30", 1.0), train("10:40", 3.0)])
    assert world.both("11:00") == {"top": 50.0, "low": 1.0, "sd": pytest.approx(22.6421, rel=1e-5)}
    assert world.both("11:20") == {"top": 3.0, "low": 1.0, "sd": 1.0}
    assert world.both("11:36") == {"top": 3.0, "low": 3.0, "sd": 0.0}


@pytest.mark.parametrize("base", [1e9, -1e9, 1.0, 1e15])
def test_the_variance_of_values_far_from_zero_is_exact(base: float) -> None:
    rng = random.Random(base)
    values = [base + rng.uniform(-1, 1) for _ in range(400)]
    rows = [train(f"{9 + i // 200:02}:{i % 200 * 3 // 10:02}", value) for i, value in enumerate(values)]
    rows = [{**row, "delay": value} for row, value in zip(rows, values, strict=True)]
    world = World(view(v=ms.variance("delay", window="3h"), sd=ms.std("delay", window="3h")), rows)
    mean = sum(value - base for value in values) / len(values)
    wanted = sum((value - base - mean) ** 2 for value in values) / len(values)
    for found in (world.offline("11:00"), {k[7:]: v for k, v in world.online("11:00").items()}):
        assert found["v"] == pytest.approx(wanted, rel=1e-9)
        assert found["sd"] == pytest.approx(wanted**0.5, rel=1e-9)


def test_nothing_null_and_zero_are_three_things() -> None:
    features = view(
        n=ms.count(window="1h"),
        known=ms.count("delay", window="1h"),
        total=ms.sum("delay", window="1h"),
        mean=ms.mean("delay", window="1h"),
        filled=ms.mean("delay", window="1h", default=-1.0),
        last=ms.last("delay"),
    )
    nothing = {"n": 0, "known": 0, "total": None, "mean": None, "filled": -1.0, "last": None}
    world = World(features, [train("10:00", None), train("12:00", 0.0), train("14:00", float("nan"))])
    assert world.both("09:00") == nothing
    assert set(world.statuses("09:00").values()) == {"MISSING"}
    assert world.both("10:30") == {**nothing, "n": 1}
    assert world.statuses("10:30") == {
        "Trains.n": "PRESENT", "Trains.known": "PRESENT", "Trains.total": "NULL", "Trains.mean": "NULL",
        "Trains.filled": "NULL", "Trains.last": "NULL",
    }  # fmt: skip
    assert world.both("12:30") == {"n": 1, "known": 1, "total": 0.0, "mean": 0.0, "filled": 0.0, "last": 0.0}
    assert set(world.statuses("12:30").values()) == {"PRESENT"}
    for found in (world.offline("14:30"), {k[7:]: v for k, v in world.online("14:30").items()}):
        assert (found["n"], found["known"]) == (1, 1)
        assert all(found[name] != found[name] for name in ("total", "mean", "filled", "last"))  # NaN, not null


def test_keys_that_look_alike_are_apart_and_null_matches_nothing() -> None:
    pair = Entity("pair", keys={"a": ms.String, "b": ms.String})
    source = Source("pairs", schema={"a": ms.String, "b": ms.String, "x": ms.Int64}, event_time="at")
    at = pa.scalar(instant("10:00"), pa.timestamp("us", tz="UTC")).as_py()
    keys: list[tuple[Any, Any]] = [("1", "11"), ("11", "1"), (None, "1"), ("1", None), (None, None)]
    features = view(source, pair, x=ms.last("x"), n=ms.count(window="1h"))
    world = World(features, [{"at": at, "a": a, "b": b, "x": n} for n, (a, b) in enumerate(keys)])
    moment = instant("10:30")
    asked = pa.table(
        {
            "a": pa.array([a for a, _ in keys], pa.string()),
            "b": pa.array([b for _, b in keys], pa.string()),
            "_at": pa.array([moment] * len(keys), pa.timestamp("us", tz="UTC")),
        }
    )
    schema = {"a": ms.String, "b": ms.String}
    found = point_in_time(asked, [features], world.lake.scan, schema=schema)
    assert found.column("Trains.x").to_pylist() == [0, 1, None, None, None]
    assert found.column("Trains.n").to_pylist() == [1, 1, 0, 0, 0]


def test_an_integer_is_no_string() -> None:
    world = World(view(n=ms.count(window="1h")), [train("10:00", 1.0, station="1")])
    asked = pa.table({"station": pa.array([1]), "_at": pa.array([instant("10:30")], pa.timestamp("us", tz="UTC"))})
    with pytest.raises(InvalidData, match=r"station.*int64"):
        point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA)
    assert world.both("10:30", "1") == {"n": 1}
    assert world.statuses("10:30", 1) == {"Trains.n": "MISSING"}  # type: ignore[arg-type]


def test_a_naive_time_is_refused() -> None:
    world = World(view(n=ms.count(window="1h")), [train("10:00", 1.0)])
    for naive in (pa.timestamp("us"), pa.timestamp("ns"), pa.int64(), pa.string(), pa.date32()):
        asked = pa.table({"station": ["mile end"], "_at": pa.nulls(1, naive)})
        with pytest.raises(InvalidData, match="_at"):
            point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA)


def test_an_instant_is_one_in_every_zone_and_unit() -> None:
    # New York's clocks went back on 3 November 2013: 01:30 was twice, an hour apart.
    first, second = "2013-11-03T05:30:00Z", "2013-11-03T06:30:00Z"
    world = World(view(delay=ms.last("delay"), n=ms.count(window="1h")), [train(first, 1.0), train(second, 2.0)])
    for unit in ("s", "ms", "us", "ns"):
        for zone in ("UTC", "America/New_York", "Asia/Kathmandu", "+05:30"):
            at = pa.array([instant(first), instant(second)], pa.timestamp("us", tz="UTC"))
            asked = pa.table({"station": ["mile end"] * 2, "_at": at.cast(pa.timestamp(unit, tz=zone))})
            found = point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA)
            assert found.column("Trains.delay").to_pylist() == [None, 1.0]
            assert found.column("Trains.n").to_pylist() == [0, 1]
    # What is below a microsecond is dropped, as at ingestion: the second train is not visible yet.
    fine = pa.array([instant(second) * 1000 + 999], pa.timestamp("ns", tz="America/New_York"))
    asked = pa.table({"station": ["mile end"], "_at": fine})
    found = point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA)
    assert found.column("Trains.delay").to_pylist() == [1.0]


def test_a_late_event_is_in_the_windows_after_it_was_recorded() -> None:
    world = World(view(n=ms.count(window="1h")), [train("10:00", 1.0, "10:30")])
    assert world.both("10:10") == {"n": 0}
    assert world.both("10:30") == {"n": 0}
    assert world.both(instant("10:30") + 1) == {"n": 1}
    assert world.both("10:40") == {"n": 1}


def test_every_row_is_in_a_window_whether_it_sets_a_record_or_not() -> None:
    world = World(view(n=ms.count(window="1h")), [train("10:10", 1.0), train("10:05", 2.0, "10:20")])
    assert world.both("10:30") == {"n": 2}


def test_observations_stay_in_order_with_and_without_a_match() -> None:
    world = World(view(entity=STATION, n=ms.count(window="1h"), delay=ms.last("delay")), [train("10:00", 4.0)])
    stations = ["bow road", "mile end", None, "mile end", "bow road", "mile end"]
    times = ["10:30", "10:30", "10:30", "09:00", "10:00", "10:00"]
    asked = pa.table(
        {
            "label": [6, 5, 4, 3, 2, 1],
            "_at": pa.array([*map(instant, times)], pa.timestamp("us", tz="UTC")),
            "station": pa.array(stations, pa.string()),
        }
    )
    found = point_in_time(asked, [world.view], world.lake.scan, schema=SCHEMA)
    assert found.select(asked.column_names).equals(asked)
    assert found.column("Trains.n").to_pylist() == [0, 1, 0, 0, 0, 0]
    assert found.column("Trains.delay").to_pylist() == [None, 4.0, None, None, None, None]


def test_there_is_one_zero() -> None:
    """-0.0 and 0.0 are equal, so which one a choice between them gives is chance: both reads give 0.0."""
    world = World(
        view(
            newest=ms.last("delay"),
            chosen=ms.last(ms.least(ms.col("delay"), 0.0)),
            smallest=ms.min("delay", window="1h"),
        ),
        [train("10:00", -0.0), train("10:05", 0.0), train("10:10", -0.0)],
    )
    assert [math.copysign(1, value) for value in world.both("10:30").values()] == [1, 1, 1]
