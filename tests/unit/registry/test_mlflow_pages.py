"""Runs are read page by page: each once, in order, never more than a store gives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainspring.registry.adapters.memory_search import search_tracked
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking, read_pages
from mainspring.registry.searching import RunQuery


class Page(list[Any]):
    token: str | None = None


class Store:
    """Gives runs as MLflow's stores do; while it is read, a run is added before those that are there."""

    def __init__(self, runs: int, *, most: int, growing: bool = False) -> None:
        self.ids = [f"r{number}" for number in range(runs)]
        self.most = most
        self.growing = growing
        self.asked: list[int] = []

    def __call__(self, most: int, token: str | None) -> Page:
        assert 0 < most <= self.most
        self.asked.append(most)
        at = int(token or 0)
        page = Page(SimpleNamespace(info=SimpleNamespace(run_id=each)) for each in self.ids[at : at + most])
        page.token = str(at + most) if at + most < len(self.ids) else None
        if self.growing and len(self.asked) < 4:
            self.ids.insert(0, f"new{len(self.asked)}")
        return page


def ids(found: list[Any]) -> list[str]:
    return [run.info.run_id for run in found]


@pytest.mark.parametrize("runs", [0, 1, 9, 10, 11, 35])
@pytest.mark.parametrize("limit", [0, 1, 10, 11, 29, 10**6])
def test_every_run_once_up_to_the_limit(runs: int, limit: int) -> None:
    store = Store(runs, most=10)
    assert ids(read_pages(store, limit, page=10)) == store.ids[:limit]
    assert sum(store.asked) <= max(limit, 1)


def test_a_run_that_is_added_meanwhile_moves_none_out() -> None:
    store = Store(35, most=10, growing=True)
    found = ids(read_pages(store, 10**6, page=10))
    assert [each for each in found if not each.startswith("new")] == [f"r{number}" for number in range(35)]
    assert len(found) == len(set(found))


def test_mlflow_is_asked_for_what_it_gives(tmp_path: Path) -> None:
    tracking = MlflowTracking(f"sqlite:///{tmp_path / 'tracking.db'}", tmp_path / "runs")
    made = [tracking.start("late", {}, at * 1_000_000) for at in range(3)]
    assert [run.id for run in search_tracked(tracking).search(RunQuery()).runs] == made[::-1]
    assert [run.id for run in tracking.search(limit=2)] == made[:0:-1]
    tracking.close()
