"""The search of runs against its conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kit.servers import PostgresServer
from mainspring.core.settings import Url
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.registry.adapters.memory_search import MemoryRunSearch, search_tracked
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.conformance import RunSearchConformance
from mainspring.registry.searching import RunPage, RunQuery


class TestMemoryRunSearch(RunSearchConformance):
    @pytest.fixture
    def tracking(self) -> MemoryTracking:
        return MemoryTracking()

    @pytest.fixture
    def search(self, tracking: MemoryTracking) -> MemoryRunSearch:
        return search_tracked(tracking)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    store = MlflowTracking(f"sqlite:///{path}", path.parent / "runs")
    assert store.search() == []
    store.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def empty_database(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with MLflow's empty tables."""
    made = postgres_server.fresh()
    store = MlflowTracking(_address(made), tmp_path_factory.mktemp("mlflow") / "runs")
    assert store.search() == []
    store.close()
    postgres_server.keep(made.path.name)
    return made.path.name


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of MLflow's tables, empty."""
    if request.param == "sqlite":
        (tmp_path / "tracking.db").write_bytes(request.getfixturevalue("empty"))
        return f"sqlite:///{tmp_path / 'tracking.db'}"
    server = request.getfixturevalue("postgres_server")
    return _address(server.restored(request.getfixturevalue("empty_database")))


def _address(database: Url) -> str:
    return database.text.replace("postgresql:", "postgresql+psycopg:")


class TestMlflowRunSearch(RunSearchConformance):
    @pytest.fixture
    def tracking(self, url: str, tmp_path: Path) -> Iterator[MlflowTracking]:
        with closing(MlflowTracking(url, tmp_path / "runs")) as tracking:
            yield tracking

    @pytest.fixture
    def search(self, url: str) -> Iterator[MlflowRunSearch]:
        with closing(MlflowRunSearch(url)) as search:
            yield search


def test_a_store_that_is_not_there_is_empty_and_stays_away(tmp_path: Path) -> None:
    path = tmp_path / "tracking.db"
    search = MlflowRunSearch(f"sqlite:///{path}")
    assert search.search(RunQuery()) == RunPage(())
    assert not path.exists()
    MlflowTracking(f"sqlite:///{path}", tmp_path / "runs").start("late", {}, 1_000_000)
    assert [run.model for run in search.search(RunQuery()).runs] == ["late"]


def test_mlflow_works_with_our_indexes(url: str, tmp_path: Path) -> None:
    metrics = [("auc", 0.5, 0, 1)]
    with closing(MlflowTracking(url, tmp_path / "runs")) as tracking, closing(MlflowRunSearch(url)) as search:
        run_id = tracking.start("late", {"a": "1"}, 1_000_000)
        assert search.count(RunQuery()) == 1
        tracking.log(run_id, params={"depth": "x" * 6000, "lr": "1e999"}, metrics=metrics, tags={"a": "2"})
    with closing(MlflowTracking(url, tmp_path / "runs")) as tracking:
        again = tracking.get(run_id)
    assert (again.params["lr"], again.metrics["auc"], again.tags["a"]) == ("1e999", 0.5, "2")
