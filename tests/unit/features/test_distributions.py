"""Features over time, against what a person would count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from kit.console.shop import NOW, Orders, landed
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, ManualClock, format_instant, parse_instant
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.describe.distributions import HIDDEN, NUMBERS, PERIODS, QUANTILES, SHARES, cut, distributions
from mainspring.features.describe.sampling import Bounds

START = parse_instant("2024-01-01T00:00:00Z")
meter = ms.Entity("meter", keys={"meter": ms.String})


def readings(schema: dict[str, Any], rows: list[dict[str, Any]], pii: tuple[str, ...] = ()) -> tuple[Any, MemoryLake]:
    source = ms.Source("readings", schema={"meter": ms.String, **schema}, event_time="at", pii=pii)
    lake = MemoryLake()
    stamped = [{**row, "at": format_instant(row["at"])} for row in rows]
    Ingestor(lake, MemoryLocks(), ManualClock(NOW)).ingest(source, stamped, keyings={"meter": ("meter",)})
    return source, lake


def over_time(source: Any, lake: MemoryLake, now: int, bounds: Bounds | None = None, **features: Any) -> Any:
    view = ms.feature_view(entity=meter, source=source)(type("Meter", (), features))
    return distributions(view, lake.scan("readings"), now, bounds)


def test_a_number_that_changes_once_is_seen_to_change_once() -> None:
    rows = [{"meter": f"m{n}", "x": float(n), "at": START} for n in range(100)]
    rows += [{"meter": f"m{n}", "x": 1000.0 + n, "at": START + 10 * DAY} for n in range(100)]
    found = over_time(*readings({"x": ms.Float64}, rows), START + 20 * DAY, x=ms.last("x"))
    periods = found.features["x"].periods
    before = [period.quantiles for period in periods if period.end <= START + 10 * DAY]
    after = [period.quantiles for period in periods if period.start >= START + 10 * DAY]
    assert len(before) >= 8
    expected = tuple(np.quantile(np.arange(100.0), QUANTILES).tolist())
    assert all(quantiles == pytest.approx(expected) for quantiles in before)
    # `now` is later, but nothing becomes visible after the tenth day: what is known then stays so.
    assert after == [pytest.approx(tuple(1000.0 + q for q in expected))]


def test_an_entity_counts_from_when_it_was_first_seen() -> None:
    rows = [{"meter": "early", "x": 1.0, "at": START + day * DAY} for day in range(20)]
    rows += [{"meter": "late", "x": 1.0, "at": START + day * DAY} for day in range(10, 20)]
    found = over_time(*readings({"x": ms.Float64}, rows), START + 19 * DAY, n=ms.count(window="1d"))
    reads = [period.reads for period in found.features["n"].periods]
    assert reads[:9] == [100] * 9
    assert reads[11:-1] == [200] * len(reads[11:-1])


def test_shares_of_text_and_of_booleans() -> None:
    words = ("a", "a", "a", "b", "b", "", "c", "d", "e", "f")
    rows = [{"meter": f"m{n}", "w": words[n % 10], "b": n % 4 == 0, "at": START} for n in range(100)]
    rows.append({"meter": "silent", "w": None, "b": None, "at": START})
    found = over_time(*readings({"w": ms.String, "b": ms.Boolean}, rows), START + 1, w=ms.last("w"), b=ms.last("b"))
    text, boolean = found.features["w"], found.features["b"]
    assert (text.kind, text.categories[:2], len(text.categories)) == (SHARES, ("a", "b"), 5)
    (period,) = text.periods
    assert (period.reads, period.nulls, period.quantiles) == (101, 1, None)
    assert period.shares == pytest.approx((0.3, 0.2, 0.1, 0.1, 0.1, 0.2))
    assert boolean.categories == ("false", "true")
    assert boolean.periods[0].shares == pytest.approx((0.75, 0.25, 0))
    assert boolean.null_share == pytest.approx(1 / 101)


def test_what_is_not_finite_is_counted_and_not_drawn() -> None:
    values = [float("nan"), float("inf"), 1.0, 2.0, 3.0, None]
    rows = [{"meter": f"m{n}", "x": value, "at": START} for n, value in enumerate(values)]
    found = over_time(*readings({"x": ms.Float64}, rows), START + 1, Bounds(entities=6), x=ms.last("x"))
    (period,) = found.features["x"].periods
    assert (period.reads, period.nulls, period.strange) == (6, 1, 2)
    assert period.quantiles[2] == 2.0


def test_what_identifies_a_person_is_not_told() -> None:
    rows = [{"meter": f"m{n}", "name": f"Ana {n}", "age": n, "at": START} for n in range(9)]
    source, lake = readings({"name": ms.String, "age": ms.Int64}, rows, pii=("name", "age"))
    found = over_time(
        source,
        lake,
        START + HOUR,
        name=ms.last("name"),
        oldest=ms.max("age", window="1d"),
        named=ms.count("name", window="1d"),
    )
    assert [feature.kind for feature in found.features.values()] == [HIDDEN, HIDDEN, NUMBERS]
    assert "Ana" not in repr(found)
    assert found.features["oldest"].periods[0].quantiles is None


def test_keys_that_identify_a_person_are_no_examples() -> None:
    rows = [{"meter": f"m{n}", "x": 1.0, "at": START} for n in range(9)]
    open_, hidden = readings({"x": ms.Float64}, rows), readings({"x": ms.Float64}, rows, pii=("meter",))
    assert len(over_time(*open_, START + 1, x=ms.last("x")).examples) == 6
    assert over_time(*hidden, START + 1, x=ms.last("x")).examples == ()


def test_the_future_is_not_read() -> None:
    rows = [{"meter": "m", "x": 1.0, "at": START + day * DAY} for day in range(10)]
    rows.append({"meter": "m", "x": 1e9, "at": START + 12 * DAY})
    found = over_time(*readings({"x": ms.Float64}, rows), START + 11 * DAY, x=ms.max("x", window="30d"))
    assert max(period.quantiles[-1] for period in found.features["x"].periods if period.quantiles) == 1.0


def test_it_is_no_more_work_than_was_allowed() -> None:
    found = distributions(Orders, landed().scan("orders"), NOW, Bounds(entities=20))
    assert found.entities == 11
    assert found.instants == 1
    assert all(period.reads <= 20 for feature in found.features.values() for period in feature.periods)
    assert len(found.features["orders_24h"].periods) <= PERIODS
    assert tuple(found.features) == Orders.names


def test_without_a_row_there_is_nothing() -> None:
    assert (
        over_time(*readings({"x": ms.Float64}, [{"meter": "m", "x": 1.0, "at": START}]), START - 1, x=ms.last("x"))
        is None
    )


@given(st.integers(-(10**17), 10**17), st.integers(0, 10**16))
def test_periods_hold_everything_and_are_equal(start: int, length: int) -> None:
    end = start + length
    periods = cut(start, end)
    assert periods[0][0] <= start < periods[0][1]
    assert periods[-1][0] <= end < periods[-1][1]
    assert len({b - a for a, b in periods}) == 1
    assert all(one[1] == two[0] for one, two in pairwise(periods))
    assert len(periods) <= PERIODS
