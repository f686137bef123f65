"""States of prediction logs in a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mainspring.core.time import MINUTE
from mainspring.ledger.adapters.moved_logs import CatalogMovedLogs
from mainspring.ledger.moved_logs import GONE_US, MovedLog, MovedLogs, lost
from mainspring.project.catalog import memory_catalog

POD = MovedLog(id="a", place="shop-gateway-x", seen_at=10 * MINUTE, waiting=3, per_second=1.5)


@pytest.fixture
def logs() -> Iterator[MovedLogs]:
    engine = memory_catalog()
    yield CatalogMovedLogs(engine)
    engine.dispose()


def test_the_last_state_of_each_log_is_kept(logs: MovedLogs) -> None:
    assert logs.all() == []
    other = replace(POD, id="b", seen_at=POD.seen_at - 1)
    for each in (POD, other, replace(POD, waiting=9), again := replace(POD, seen_at=POD.seen_at + 5, ended=True)):
        logs.tell(each)
    assert logs.all() == [other, again]
    logs.forget(["b", "unknown"])
    logs.forget([])
    assert logs.all() == [again]


def test_a_log_is_lost_once_its_mover_has_ended_with_rows_left_or_is_silent() -> None:
    silent = replace(POD, id="b", seen_at=POD.seen_at - GONE_US - 1)
    ended = replace(POD, id="c", ended=True)
    assert lost([POD, silent, ended], POD.seen_at) == [silent, ended]
    assert lost([POD], POD.seen_at + GONE_US) == []
