"""States of stream endpoints in files, and in a catalog on SQLite and on Postgres; and an endpoint that two processes
share there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.depth import deep
from kit.stream_endpoints import SPEC, START, TOPIC, Stage, message, told
from kit.stream_log import all_messages
from kit.stream_oracle import brute
from mainspring.core.errors import Conflict
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.landing import LEASE_US
from mainspring.operations.stream_endpoints.sharing import Leases
from mainspring.security.data_keys import OneKey
from mainspring.serving.adapters.sealed_states import SealedStates
from mainspring.serving.adapters.stream_states import CatalogStates
from mainspring.serving.conformance.stream_states import StateStoreConformance
from mainspring.serving.streaming.runner import Runner
from mainspring.serving.streaming.state import StateStore
from mainspring.serving.streaming.state_file import StateFiles


class TestFiles(StateStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> StateFiles:
        return StateFiles(tmp_path)


class TestSealedFiles(StateStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SealedStates:
        return SealedStates(StateFiles(tmp_path), OneKey(), "checks", encrypt=True)


class TestCatalogOnSqlite(StateStoreConformance):
    shared = True

    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogStates:
        return CatalogStates(catalog, "lake", "checks")

    def concurrent(self, _store: StateStore) -> bool:
        return False  # in memory it has one connection


class TestCatalogOnPostgres(StateStoreConformance):
    shared = True

    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogStates:
        return CatalogStates(engine, "lake", "checks")


@deep
class TestSealedOnPostgres(StateStoreConformance):
    shared = True

    @pytest.fixture
    def store(self, engine: sa.Engine) -> SealedStates:
        return SealedStates(CatalogStates(engine, "lake", "checks"), OneKey(), "checks", encrypt=True)


def test_partitions_move_with_their_states_and_who_lost_one_writes_no_more(engine: sa.Engine, tmp_path: Path) -> None:
    log, lake, wall = MemoryLog(ManualClock()), MemoryLake(), ManualClock(START)
    store = CatalogStreams(engine, "lake")

    def process(owner: str) -> tuple[Stage, Runner, Leases]:
        stage = Stage(tmp_path, partitions=2, log=log, lake=lake)
        stage.states = CatalogStates(engine, "lake", "checks")
        # Locks of its own: as if the connection to each had broken.
        stage.share = leases = Leases("checks", owner, store, MemoryLocks(), wall)
        return stage, stage.runner(at_once=7), leases

    def put(first: int) -> None:
        made = [message(number, "ab"[number % 2], number / 8, id=number) for number in range(first, first + 20)]
        log.produce(TOPIC, [dataclasses.replace(each, partition=n % 2) for n, each in enumerate(made)])

    def work(runner: Runner) -> None:
        runner._look_at = 0.0
        while runner.step():
            pass
        runner.deliver()

    stage, one, first = process("one")
    put(0)
    work(one)
    assert {*one.partitions} == {0, 1}
    _, two, second = process("two")
    work(two)
    first.renew()
    work(one)
    second.renew()
    work(two)
    assert (len(one.partitions), {*one.partitions, *two.partitions}) == (1, {0, 1})
    put(20)
    work(one)
    work(two)
    wall.advance(LEASE_US + 1)  # the first is suspended for so long
    second.renew()
    work(two)
    assert {*two.partitions} == {0, 1}
    put(40)
    one._look_at = float("inf")
    with pytest.raises(Conflict, match="another process"):
        one.step()
    work(two)
    for leases in (first, second, first):  # the first is back, the second gives up one, the first takes it
        leases.renew()
    put(60)
    work(two)
    work(one)
    assert {len(one.partitions), len(two.partitions)} == {1}
    for partition in (0, 1):
        wanted = brute([each for each in all_messages(log, TOPIC) if each.partition == partition], SPEC).outputs
        mine = [each for each in stage.outputs() if each["event_id"].startswith(f"checks-{partition}-")]
        assert told(mine) == wanted
    rows = [row["event_id"] for row in stage.rows("scored")]
    assert (len(rows), len(set(rows))) == (80, 80)
