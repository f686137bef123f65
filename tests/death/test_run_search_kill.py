"""Runs are searched while three processes log, delete and restore them; what is found stays true after a kill -9."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.depth import examples
from mainspring.core.errors import MainspringError
from mainspring.core.time import SystemClock
from mainspring.registry.adapters.memory_search import MemoryRunSearch, row_of
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.searching import Kind, RunQuery, RunSearch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TESTS = Path(__file__).parents[1]
WRITERS, ROUNDS, LOOKED_S = 3, 1, 1.0
ASKED = (
    ("", "started desc"),
    ("loss < 0.5 and params.depth = 3", "metrics.loss asc"),
    ("status = failed model-1", "params.depth desc"),
    ("params.how = adam part-7 is null", "params.how asc"),
    ("metrics.part-7 = 1", "started asc"),
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tracking.db'}"
    return str(request.getfixturevalue("postgres_server").fresh().text).replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture
def tracking(url: str, tmp_path: Path) -> Iterator[MlflowTracking]:
    with closing(MlflowTracking(url, tmp_path / "runs")) as tracking:
        assert tracking.search() == []
        yield tracking


def query_of(text: str, order: str, kinds: Any) -> RunQuery:
    found = parse_filter(text, SystemClock().now(), kinds)
    return RunQuery(found.conditions, found.words, parse_order(order, kinds), limit=50)


def walked(search: RunSearch, query: RunQuery) -> list[str]:
    ids: list[str] = []
    while True:
        page = search.search(query)
        ids += [run.id for run in page.runs]
        if not page.next:
            return ids
        query = replace(query, after=page.next)


def look_round(search: RunSearch) -> int:
    """Ask for everything that the pages ask for; nothing of it may fail. Return how much was found."""
    seen = 0
    for text, order in ASKED:
        page = search.search(query_of(text, order, search.kinds), None, count_to=50)
        ids = [run.id for run in page.runs]
        seen += len(ids)
        assert page.count is not None
        search.lines(ids, "loss")
        search.history(ids, "loss", points=3)
        search.lined(ids, ["loss"])
    newest = walked(search, RunQuery(limit=200))
    assert len(newest) == len(set(newest))
    search.names(Kind.METRIC, "part", limit=5)
    return seen


@pytest.mark.parametrize("url", examples(gate=["sqlite"], deep=["sqlite", "postgres"]), indirect=True)
def test_searching_while_runs_are_logged_and_writers_are_killed(
    url: str, tracking: MlflowTracking, tmp_path: Path
) -> None:
    draw, victim = random.Random(os.environ.get("DEATH_SEED")), TESTS / "death" / "runs_victim.py"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    logged = 0
    with closing(MlflowRunSearch(url)) as search:  # its indexes are made while runs are logged
        for _ in range(ROUNDS):
            writers = [
                subprocess.Popen(
                    [sys.executable, str(victim), url, str(tmp_path / "runs"), f"{number}-{draw.random()}"],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                )
                for number in range(WRITERS)
            ]  # fmt: skip
            try:
                for writer in writers:
                    assert writer.stdout is not None
                    assert writer.stderr is not None
                    assert writer.stdout.readline() == "logged\n", writer.stderr.read()
                until = time.monotonic() + draw.uniform(0.5, 1) * LOOKED_S
                while time.monotonic() < until:
                    assert look_round(search) > 0
                assert [writer.poll() for writer in writers] == [None] * WRITERS, "a writer could not go on"
            finally:
                for writer in writers:
                    writer.kill()
                    writer.communicate(timeout=60)
            logged = _agrees(search, tracking)
    assert logged > WRITERS
    with closing(MlflowRunSearch(url)) as again:
        assert _agrees(again, tracking) == logged


def _agrees(search: RunSearch, tracking: MlflowTracking) -> int:
    """Compare with going through what MLflow itself says there is; return how many runs there are."""
    rows = [row_of(record) for record in tracking.search(limit=10_000)]
    every = MemoryRunSearch(lambda: rows, tracking.history)
    for text, order in ASKED:
        query = query_of(text, order, every.kinds)
        assert walked(search, query) == walked(every, query), text
        assert search.count(query) == every.count(query)
    ids = walked(every, RunQuery(limit=200))
    for found, there in zip(search.get(ids), every.get(ids), strict=True):
        assert (found.status, found.params, found.metrics) == (there.status, there.params, there.metrics)
        assert not any(math.isnan(value) for value in found.metrics.values())
    for metric in ("loss", "part-7"):
        assert search.lines(ids[:20], metric) == every.lines(ids[:20], metric)
    return len(ids)


def test_a_deleted_run_is_gone_at_once_and_a_restored_one_back(url: str, tracking: MlflowTracking) -> None:
    one, other = (tracking.start("late", {}, at * 1_000_000) for at in (1, 2))
    for run_id in (one, other):
        tracking.log(run_id, metrics=[("loss", 0.5, 0, 1)], params={"depth": "3"})
    with closing(MlflowRunSearch(url)) as search:
        queries = [query_of(text, "started", search.kinds) for text in ("", "loss = 0.5", "params.depth = 3", "late")]
        for _ in range(3):
            assert [walked(search, query) for query in queries] == [[one, other]] * len(queries)
            tracking._store.delete_run(one)
            assert [walked(search, query) for query in queries] == [[other]] * len(queries)
            assert {search.count(query) for query in queries} == {1}
            assert [run.id for run in search.rows([one, other], [])] == [other]
            with pytest.raises(MainspringError, match=one):
                search.get([one])
            tracking._store.restore_run(one)
