from __future__ import annotations

import pytest

from kit.console.shop import NOW, Orders, landed
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.time import HOUR, MINUTE
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.layout import slot
from mainspring.features.model import Mark
from mainspring.operations.features.view_freshness import EMPTY, FRESH, LATE, NEVER, UNKNOWN, view_freshness

EVERY = 5 * MINUTE


def store(*marks: Mark) -> MemoryOnlineStore:
    made = MemoryOnlineStore()
    for mark in marks:
        made.advance(slot(Orders), mark)
    return made


@pytest.fixture(params=["memory", "delta"])
def lake(request, tmp_path):
    return landed(lake=MemoryLake() if request.param == "memory" else DeltaLake(tmp_path))


def instants(lake, column: str) -> list[int]:
    scan = lake.scan("orders")
    if scan.rows is None:
        import pyarrow.parquet as pq

        return [at for file in scan.files for at in pq.read_table(file)[column].cast("int64").to_pylist()]
    return scan.rows[column].cast("int64").to_pylist()


def test_how_far_it_is(lake) -> None:
    found = view_freshness(Orders, lake, store(Mark(NOW - MINUTE, 9, 8, NOW + HOUR)), NOW, EVERY, visible=True)
    assert (found.through, found.lag_us, found.horizon, found.state) == (NOW - MINUTE, MINUTE, NOW + HOUR, FRESH)
    assert found.newest_event == max(instants(lake, "ordered_at"))
    assert found.newest_visible == max(at for at in instants(lake, "_visible_at") if at <= NOW)
    assert max(instants(lake, "_visible_at")) > NOW


def test_what_is_visible_last_at_an_earlier_time(lake) -> None:
    at = NOW - 20 * 24 * HOUR + 1
    found = view_freshness(Orders, lake, store(), at, EVERY, visible=True)
    assert found.newest_visible == max(one for one in instants(lake, "_visible_at") if one <= at)
    assert view_freshness(Orders, lake, store(), 0, EVERY, visible=True).newest_visible is None


def test_late_is_more_than_two_rounds(lake) -> None:
    assert view_freshness(Orders, lake, store(Mark(NOW - 2 * EVERY)), NOW, EVERY).state == FRESH
    assert view_freshness(Orders, lake, store(Mark(NOW - 2 * EVERY - 1)), NOW, EVERY).state == LATE


def test_never_and_empty(lake) -> None:
    assert view_freshness(Orders, lake, store(), NOW, EVERY).state == NEVER
    empty = view_freshness(Orders, MemoryLake(), store(), NOW, EVERY, visible=True)
    assert (empty.state, empty.newest_event, empty.newest_visible) == (EMPTY, None, None)


def test_what_does_not_answer_is_named(lake) -> None:
    class Silent(MemoryOnlineStore):
        def mark(self, view):
            raise Unavailable("The online store did not answer.")

    class Damaged(MemoryLake):
        def scan(self, table, version=None):
            raise Corrupt("The log of orders is damaged.")

    found = view_freshness(Orders, Damaged(), Silent(), NOW, EVERY)
    assert found.state == UNKNOWN
    assert found.problem == "The log of orders is damaged. The online store did not answer."
