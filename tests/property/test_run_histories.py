"""Histories and lines made few by the database against making them few by hand, of whatever was logged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.run_population import START, Population
from mainspring.core.errors import Invalid
from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.run_histories import FARTHEST, buckets, line
from mainspring.registry.searching import MOST_POINTS, Axis, RunRow

LOSS, RUNS = "loss", ("one", "other")
INFINITY = 1.7976931348623157e308  # as MLflow keeps it
FIRST_STEP = -(2**63)  # MLflow takes any integer of 64 bits
steps = st.one_of(st.integers(-5, 5), st.integers(0, 10**6), st.integers(FIRST_STEP, FARTHEST)) | st.sampled_from(
    (FIRST_STEP, -1, 0, 1, FARTHEST)
)
values = st.floats(-1e9, 1e9) | st.sampled_from((math.nan, INFINITY, -INFINITY, 0.0, -0.0, 5e-324, 1e300, -1e300))
# Instants in any order: a clock may go back. MLflow refuses those before 1970, and takes any other of 64 bits.
instants = (st.integers(0, 5) | st.integers(0, 10**12) | st.just(FARTHEST // MILLISECOND)).map(
    lambda ms: ms * MILLISECOND
)
histories = st.lists(st.tuples(values, steps, instants), max_size=30)
points_asked = st.integers(1, 40) | st.just(MOST_POINTS)


@pytest.fixture(scope="module", params=examples(gate=["sqlite"], deep=["sqlite", "postgres"]))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("histories")
    url = f"sqlite:///{folder / 'tracking.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").fresh().text.replace("postgresql:", "postgresql+psycopg:")
    made = MlflowTracking(url, folder / "runs")
    assert made.search() == []
    made.close()
    search = MlflowRunSearch(url)
    yield url, search
    search.close()


def logged_of(histories: list[list[Any]]) -> dict[str, list[Any]]:
    """What is equal is kept once: MLflow's table says so."""
    kept: dict[str, list[Any]] = {}
    for run_id, history in zip(RUNS, histories, strict=True):
        unique = {(repr(value + 0.0), step, at): (value + 0.0, step, at) for value, step, at in history}
        kept[run_id] = list(unique.values())
    return kept


def put(url: str, logged: dict[str, list[Any]]) -> None:
    made = Population([RunRow(run_id, "", "late", "FINISHED", START, START) for run_id in RUNS])
    made.logged = {(run_id, LOSS): history for run_id, history in logged.items()}
    made.into(url)


@settings(max_examples=examples(gate=8, deep=80), deadline=None, suppress_health_check=list(HealthCheck))
@given(histories=st.lists(histories, min_size=2, max_size=2), points=points_asked, axis=st.sampled_from(Axis))
def test_few_of_whatever_was_logged(store: tuple[str, Any], histories, points, axis) -> None:
    url, search = store
    logged = logged_of(histories)
    put(url, logged)
    found, wanted = search.history(RUNS, LOSS, points=points, axis=axis), buckets(LOSS, logged, points, axis)
    assert (found.first, found.width, found.runs.keys()) == (wanted.first, wanted.width, wanted.runs.keys())
    for run_id, told in wanted.runs.items():
        assert len(told) <= points
        assert sum(each.count + each.nans for each in told) == len(logged[run_id])
        for one, other in zip(found.runs[run_id], told, strict=True):
            assert (one.place, one.count, one.nans) == (other.place, other.count, other.nans)
            assert [one.low, one.high] == pytest.approx([other.low, other.high], rel=0, abs=0, nan_ok=True)
            largest = max((abs(value) for value, _, _ in logged[run_id] if abs(value) < 1e300), default=0)
            assert one.mean == pytest.approx(other.mean, rel=1e-12, abs=1e-13 * largest * 30, nan_ok=True)
    lines = {run_id: told for run_id, history in logged.items() if (told := line(history, points))}
    assert search.lines(RUNS, LOSS, points=points) == lines
    assert search.lined(RUNS, [LOSS]) == ([LOSS] if lines else [])


def placed(history: list[Any], axis: Axis) -> list[int]:
    return [each[1] if axis is Axis.STEP else each[2] for each in history]


@settings(max_examples=examples(gate=60, deep=200), deadline=None)
@given(history=histories, points=points_asked, axis=st.sampled_from(Axis))
def test_a_bucket_has_what_lies_in_it(history, points, axis) -> None:
    """The reference itself, against what `History` says of a bucket."""
    found = buckets(LOSS, {"one": history}, points, axis)
    inside = 0
    for bucket in found.runs.get("one", ()):
        begin = found.begin(bucket.place)
        there = [v for (v, *_), at in zip(history, placed(history, axis), strict=True) if 0 <= at - begin < found.width]
        known = [value for value in there if not math.isnan(value)]
        assert (bucket.count, bucket.nans) == (len(known), len(there) - len(known))
        assert not known or (bucket.low, bucket.high) == (min(known), max(known))
        inside += len(there)
    assert inside == len(history)
    told = line(history, points)
    assert len(told) in (0, points)
    if told:
        in_order = sorted(history, key=lambda each: (each[1], each[2]))
        ends = [value for value, step, _ in in_order if step == in_order[0][1]]
        assert told[0] in ends or told[0] is None


@pytest.mark.parametrize("points", [0, -1, MOST_POINTS + 1])
def test_points_that_cannot_be(store: tuple[str, Any], points: int) -> None:
    url, search = store
    put(url, {RUNS[0]: [(1.0, 0, START), (2.0, 1, START)]})
    for asked in (search.history, search.lines):
        with pytest.raises(Invalid, match=f"A history cannot have {points} points"):
            asked(RUNS, LOSS, points=points)


def test_a_line_of_one_point_is_its_first_value(store: tuple[str, Any]) -> None:
    url, search = store
    put(url, {RUNS[0]: [(3.0, 7, START), (2.0, 5, START), (1.0, 9, START)], RUNS[1]: [(1.0, 5, START)]})
    assert search.lines(RUNS, LOSS, points=1) == {RUNS[0]: (2.0,)}
