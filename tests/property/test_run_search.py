"""The search of runs by SQL against going through all of them, on whatever runs and questions come up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.run_population import METRICS, MODELS, NUMBERS, PARAMS, START, STATUSES, TAGS, TEXTS, Population, population
from mainspring.core.time import MILLISECOND, SECOND
from mainspring.registry.adapters import mlflow_asking
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.searching import Axis, Column, Condition, History, Kind, Order, RunQuery, RunSearch

ABSENT = "nobody has it"
COMPARING = ("=", "!=", "<", "<=", ">", ">=")
PATTERNS = ("%", "adam", "ADAM", "a_b", "A%", "%3%", "_", "100%", "\\%", "")
columns = st.one_of(
    st.builds(Column, st.just(Kind.METRIC), st.sampled_from((*METRICS, ABSENT))),
    st.builds(Column, st.just(Kind.PARAM), st.sampled_from((*PARAMS, ABSENT))),
    st.builds(Column, st.just(Kind.TAG), st.sampled_from((*TAGS, ABSENT))),
    st.builds(
        Column,
        st.just(Kind.ATTRIBUTE),
        st.sampled_from(("name", "model", "status", "started", "ended", "duration", "id")),
    ),
)
instants = st.integers(0, 6 * SECOND).map(lambda us: START + us) | st.sampled_from(
    [START + n * SECOND for n in range(6)]
)


@st.composite
def conditions(draw: Any) -> Condition:
    column = draw(columns)
    if draw(st.integers(0, 7)) == 0:
        return Condition(column, draw(st.sampled_from(("is null", "is not null"))))
    if column.is_number:
        of = {"duration": st.integers(0, 4 * MILLISECOND), "started": instants, "ended": instants}
        number = of.get(column.name, st.sampled_from([each for each in NUMBERS if not math.isnan(each)]))
        return Condition(column, draw(st.sampled_from(COMPARING)), draw(number))
    if column.kind is not Kind.ATTRIBUTE and draw(st.booleans()):
        return Condition(column, draw(st.sampled_from(COMPARING)), draw(st.sampled_from((3.0, -0.5, 1e-4, 5.0, 7.0))))
    text = st.sampled_from((*TEXTS, *MODELS, *STATUSES, "swift-fox", "zz"))
    operator = draw(st.sampled_from((*COMPARING, "like", "ilike", "contains", "in", "not in")))
    if operator in ("in", "not in"):
        return Condition(column, operator, tuple(draw(st.lists(text, min_size=1, max_size=3))))
    return Condition(column, operator, draw(st.sampled_from(PATTERNS) if "like" in operator else text))


queries = st.builds(
    RunQuery,
    conditions=st.lists(conditions(), max_size=3).map(tuple),
    words=st.lists(st.sampled_from(("swift", "LATE", "0", "%", "é", "nothing", "fox")), max_size=2).map(tuple),
    order=st.builds(Order, columns, st.booleans()),
    limit=st.sampled_from((1, 2, 7, 50)),
)
questions = st.lists(queries, min_size=1, max_size=12)
FEW_OR_MANY = st.sampled_from((0, 3, 400))  # how many runs are few: both ways are taken


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    store = MlflowTracking(f"sqlite:///{path}", path.parent / "runs")
    assert store.search() == []
    store.close()
    return path.read_bytes()


@pytest.fixture(scope="module", params=examples(gate=["sqlite"], deep=["sqlite", "postgres"]))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        (folder / "tracking.db").write_bytes(request.getfixturevalue("empty"))
        yield f"sqlite:///{folder / 'tracking.db'}"
        return
    url = request.getfixturevalue("postgres_server").url.text.replace("postgresql:", "postgresql+psycopg:")
    made = MlflowTracking(url, folder / "runs")
    assert made.search() == []
    made.close()
    yield url


@pytest.fixture(scope="module")
def by_sql(store: str) -> Iterator[MlflowRunSearch]:
    search = MlflowRunSearch(store)
    yield search
    search.close()


def walked(search: RunSearch, query: RunQuery, shown: list[Column]) -> Iterator[Any]:
    """Give every page's runs until there is none."""
    while True:
        page = search.search(query, shown)
        yield [comparable(run) for run in page.runs]
        if not page.next:
            return
        query = replace(query, after=page.next)


def comparable(run: Any) -> Any:
    metrics = {name: "nan" if math.isnan(value) else value for name, value in run.metrics.items()}
    return replace(run, metrics=metrics)


@settings(max_examples=examples(gate=6, deep=60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6), count=st.sampled_from((0, 1, 30)), asked=questions, few=FEW_OR_MANY,
    many=FEW_OR_MANY, shown=st.lists(columns, max_size=3),
)  # fmt: skip
def test_pages_and_counts(
    store: str, by_sql: MlflowRunSearch, monkeypatch: Any, seed, count, asked, few, many, shown
) -> None:
    made = population(seed, count)
    made.into(store)
    monkeypatch.setattr(mlflow_asking, "FEW", few)
    monkeypatch.setattr(mlflow_asking, "MANY", many)
    in_memory = made.in_memory()
    for query in asked:
        assert list(walked(by_sql, query, shown)) == list(walked(in_memory, query, shown)), query
        assert by_sql.count(query) == in_memory.count(query)
        assert by_sql.count(query, at_most=3) == in_memory.count(query, at_most=3)
        for count_to in (0, 2, 100):
            found = by_sql.search(query, None, count_to=count_to)
            assert found.count == (in_memory.count(query, at_most=count_to) if count_to else None)
            whole = in_memory.search(query, None)
            assert list(map(comparable, found.runs)) == list(map(comparable, whole.runs))


@settings(max_examples=examples(gate=3, deep=25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6), points=st.sampled_from((1, 2, 7, 100)), axis=st.sampled_from(Axis),
    text=st.sampled_from(("", "AUC", "l", "note", "zz")), limit=st.sampled_from((1, 100)),
)  # fmt: skip
def test_histories_names_and_whole_runs(store: str, by_sql: MlflowRunSearch, seed, points, axis, text, limit) -> None:
    made = population(seed, 6)
    made.deleted.clear()
    made.into(store)
    in_memory = made.in_memory()
    ids = [run.id for run in made.runs]
    for metric in (*METRICS, ABSENT):
        close_to(
            by_sql.history(ids, metric, points=points, axis=axis),
            in_memory.history(ids, metric, points=points, axis=axis),
        )
        assert by_sql.lines(ids, metric, points=points) == in_memory.lines(ids, metric, points=points)
    wanted = ["val/loss", ABSENT, "auc", "holdout.auc"]
    for of in (ids[:2], ids[2:3], ["nobody"]):
        assert by_sql.lined(of, wanted) == in_memory.lined(of, wanted)
    for kind in (Kind.METRIC, Kind.PARAM, Kind.TAG):
        for of in (None, ids[:2], ["nobody"]):
            assert by_sql.names(kind, text, limit=limit, of=of) == in_memory.names(kind, text, limit=limit, of=of)
    for name in (*METRICS, *PARAMS, *TAGS, ABSENT):
        assert by_sql.kinds(name) == in_memory.kinds(name)
    some = [Column(Kind.METRIC, "auc"), Column(Kind.PARAM, "depth"), Column(Kind.TAG, ABSENT)]
    for asked in (ids[::-1], ["nobody", *ids[:1]], []):
        found, there = by_sql.rows(asked, some), in_memory.rows(asked, some)
        assert list(map(comparable, found)) == list(map(comparable, there))
    assert [comparable(run) for run in by_sql.get(ids[::-1])] == [comparable(run) for run in in_memory.get(ids[::-1])]


def close_to(found: History, wanted: History) -> None:
    assert (found.first, found.width, sorted(found.runs)) == (wanted.first, wanted.width, sorted(wanted.runs))
    for run_id, buckets in wanted.runs.items():
        for one, other in zip(found.runs[run_id], buckets, strict=True):
            assert (one.place, one.count, one.nans) == (other.place, other.count, other.nans)
            for name in ("low", "high", "mean"):
                assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12, nan_ok=True)


def test_the_population_has_what_is_hard() -> None:
    made: Population = population(1, 200)
    assert any(math.isnan(value) for run in made.runs for value in run.metrics.values())
    assert len({run.started_at for run in made.runs}) == 6
    assert {run.status for run in made.runs} == set(STATUSES)
