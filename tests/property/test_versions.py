"""Versions of facts: cases 17 and 18 by hand at every microsecond that matters, offline and in every store; the random
histories of corrections, retractions and moves are among those of test_point_in_time, test_fallback and test_verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from kit.everywhere import TIME, Everywhere
from kit.oracle import DAY, HOUR, MINUTE
from mainspring.core.time import parse_duration
from mainspring.features.declaring import feature_view
from mainspring.features.model import Entity, hop
from mainspring.features.ports import OnlineStore
from property.test_cases import CASE, behinds, instants, moments

Stores = Callable[[], dict[str, OnlineStore]]
ENTITY = Entity("pair", keys={"a": ms.String, "b": ms.String})
FACTS = ms.Source(
    "facts",
    schema={"a": ms.String, "b": ms.String, "x": ms.Float64, "payment": ms.String, "void": ms.Boolean},
    event_time="at",
    recorded_time="known_at",
    id="payment",
    retracted="void",
)
OTHER = ("2", "2")
WHOLE = ms.col("x").cast(ms.Int64)


class Examples:
    cases = 0


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nversions: {Examples.cases} random examples of cases 17 and 18, each offline and in every store")


def world(stores: Stores, window: str, behind: int) -> Everywhere:
    Examples.cases += 1
    body = {"n": ms.count(window=window), "total": ms.sum("x", window=window), "most": ms.max("x", window=window),
            "kinds": ms.distinct(WHOLE, window=window), "middle": ms.quantile("x", 0.5, window=window),
            "usual": ms.top_k(WHOLE, 1, window=window), "last": ms.last("x")}  # fmt: skip
    view = feature_view(entity=ENTITY, source=FACTS)(type("Facts", (), body))
    return Everywhere(view, stores(), behind=behind)


def land(at: Everywhere, *rows: tuple[int, float | None, int, tuple[str, str], str, bool]) -> None:
    columns = {
        "at": pa.array([event for event, *_ in rows], TIME),
        "known_at": pa.array([known for _, _, known, *_ in rows], TIME),
        "a": [key[0] for _, _, _, key, *_ in rows],
        "b": [key[1] for _, _, _, key, *_ in rows],
        "x": pa.array([x for _, x, *_ in rows], pa.float64()),
        "payment": [name for *_, name, _ in rows],
        "void": [void for *_, void in rows],
    }
    at.land_table(FACTS, pa.table(columns), {(key[0], key[1]) for _, _, _, key, *_ in rows})


NONE = {"n": 0, "total": None, "most": None, "kinds": 0, "middle": None, "usual_1": None, "last": None}
ONE, KEY = "p1", ("1", "11")
windows = st.sampled_from(["1h", "24h", "30d"])


def said(x: float, *, inside: bool = True) -> dict[str, Any]:
    if not inside:
        return {**NONE, "last": x}
    return {"n": 1, "total": x, "most": x, "kinds": 1, "middle": x, "usual_1": int(x), "last": x}


@CASE
@given(event=instants, after=moments, window=windows, behind=behinds, together=st.booleans())
def test_corrected_event(
    online_stores: Stores, event: int, after: int, window: str, behind: int, together: bool
) -> None:
    facts = world(online_stores, window, behind)
    rows = [(event, 10.0, event, KEY, ONE, False), (event, 20.0, event + after, KEY, ONE, False)]
    leaves = (event // hop(parse_duration(window)) + 1) * hop(parse_duration(window)) + parse_duration(window)
    for batch in [rows] if together else [[row] for row in rows]:
        land(facts, *batch)
    assert facts.read(event) == NONE
    assert facts.read(event + 1) == said(10.0)
    assert facts.read(event + after) == said(10.0, inside=event + after < leaves)
    assert facts.read(event + after + 1) == said(20.0, inside=event + after + 1 < leaves)


@CASE
@given(event=instants, after=moments, by=st.sampled_from([-2 * DAY, -HOUR, -1, 1, MINUTE]), behind=behinds)
def test_a_correction_moves_the_event(online_stores: Stores, event: int, after: int, by: int, behind: int) -> None:
    facts = world(online_stores, "30d", behind)
    land(facts, (event, 10.0, event, KEY, ONE, False), (event - HOUR, 7.0, event - HOUR, KEY, "p2", False))
    land(facts, (event + by, 20.0, event + after, KEY, ONE, False))
    moved = max(event + by, event + after)
    both = {"n": 2, "kinds": 2, "middle": 7.0, "usual_1": 7}
    assert facts.read(moved) == {**both, "total": 17.0, "most": 10.0, "last": 10.0}
    newest = 20.0 if event + by >= event - HOUR else 7.0
    assert facts.read(moved + 1) == {**both, "total": 27.0, "most": 20.0, "last": newest}


@CASE
@given(event=instants, after=moments, window=windows, behind=behinds)
def test_a_correction_moves_the_fact_to_another_entity(
    online_stores: Stores, event: int, after: int, window: str, behind: int
) -> None:
    facts = world(online_stores, window, behind)
    land(facts, (event, 10.0, event, KEY, ONE, False))
    assert facts.read(event + 1) == said(10.0)
    land(facts, (event + after, 20.0, event + after, OTHER, ONE, False))
    assert facts.read(event + after)["last"] == 10.0
    assert facts.read(event + after, OTHER) == NONE
    assert facts.read(event + after + 1) == NONE
    assert set(facts.statuses.values()) == {"NULL", "PRESENT"}  # seen, and nothing of it counts
    assert facts.read(event + after + 1, OTHER) == said(20.0)


@CASE
@given(event=instants, steps=st.tuples(moments, moments), window=windows, behind=behinds)
def test_retraction(online_stores: Stores, event: int, steps: tuple[int, int], window: str, behind: int) -> None:
    facts = world(online_stores, window, behind)
    void = event + steps[0]
    back = void + steps[1]
    land(facts, (event, 10.0, event, KEY, ONE, False))
    land(facts, (event, None, void, KEY, ONE, True))
    land(facts, (back, 30.0, back, KEY, ONE, False))
    assert facts.read(void)["last"] == 10.0
    assert facts.read(void + 1) == NONE
    assert facts.read(back) == NONE
    assert facts.read(back + 1) == said(30.0)


@CASE
@given(event=instants, after=moments, behind=behinds)
def test_of_two_corrections_at_one_instant_the_last_to_arrive_counts(
    online_stores: Stores, event: int, after: int, behind: int
) -> None:
    facts = world(online_stores, "30d", behind)
    land(facts, (event, 10.0, event, KEY, ONE, False))
    land(facts, (event, 20.0, event + after, KEY, ONE, False), (event, 30.0, event + after, KEY, ONE, False))
    assert facts.read(event + after) == said(10.0)
    assert facts.read(event + after + 1) == said(30.0)


def test_a_retraction_of_what_never_was_changes_nothing(online_stores: Stores) -> None:
    facts = world(online_stores, "24h", 0)
    start = 1_383_458_400_000_000
    land(facts, (start, None, start, KEY, ONE, True))
    assert facts.read(start + 1) == NONE
    assert set(facts.statuses.values()) == {"MISSING"}
    land(facts, (start, 5.0, start - HOUR, KEY, ONE, False))  # an older version, which came too late to count
    assert facts.read(start + 2) == NONE


def test_what_a_superseded_version_shadowed_is_the_last_value_again(online_stores: Stores) -> None:
    facts = world(online_stores, "24h", 0)
    start = 1_383_458_400_000_000
    land(facts, (start + HOUR, 10.0, start + HOUR, KEY, ONE, False))
    land(facts, (start, 7.0, start + 2 * HOUR, KEY, "p2", False))  # an older event: it never counts
    assert facts.read(start + 2 * HOUR + 1)["last"] == 10.0
    land(facts, (start + HOUR, None, start + 3 * HOUR, KEY, ONE, True))
    assert facts.read(start + 3 * HOUR)["last"] == 10.0
    assert facts.read(start + 3 * HOUR + 1)["last"] == 7.0
