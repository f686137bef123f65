from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.errors import Corrupt, StorageFull, Unavailable
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.conformance import OnlineStoreConformance
from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore
from servers import Server


class TestMemory(OnlineStoreConformance):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryOnlineStore()


class TestLmdb(OnlineStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LmdbOnlineStore]:
        store = LmdbOnlineStore(tmp_path / "state" / "online.lmdb")
        yield store
        store.close()


class TestRedis(OnlineStoreConformance):
    @pytest.fixture
    def store(self, redis_server: Server, request: pytest.FixtureRequest) -> Iterator[RedisOnlineStore]:
        store = RedisOnlineStore(redis_server.url, request.node.nodeid)
        yield store
        store.close()


class TestPostgres(OnlineStoreConformance):
    @pytest.fixture
    def store(self, postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[PostgresOnlineStore]:
        store = PostgresOnlineStore(postgres_server.url, request.node.nodeid)
        yield store
        store.close()


class TestSqlite(OnlineStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteOnlineStore]:
        store = SqliteOnlineStore(tmp_path / "state" / "online.db")
        yield store
        store.close()

    def test_its_files_are_private(self, store: SqliteOnlineStore, tmp_path: Path) -> None:
        store.write("v", [(b"a", EntityState(1, b"x"))])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()}
        assert modes["online.db"] == 0o600
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700

    def test_another_store_on_the_file_sees_what_was_written(self, store: SqliteOnlineStore, tmp_path: Path) -> None:
        other = SqliteOnlineStore(tmp_path / "state" / "online.db")
        store.write("v", [(b"a", EntityState(1, b"x"))])
        store.advance("v", Mark(1))
        assert other.read([("v", b"a")]) == [EntityState(1, b"x")]
        assert other.mark("v") == Mark(1)
        other.close()

    def test_it_works_again_after_close(self, store: SqliteOnlineStore) -> None:
        store.write("v", [(b"a", EntityState(1, b"x"))])
        store.close()
        assert store.read([("v", b"a")]) == [EntityState(1, b"x")]

    def test_each_thread_has_its_own_connection(self, store: SqliteOnlineStore) -> None:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for position in range(20):
                    store.write("v", [(bytes([number]), EntityState(position, b"x"))])
                    assert store.read([("v", bytes([number]))]) == [EntityState(position, b"x")]
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_a_child_process_opens_its_own_connection(self, store: SqliteOnlineStore) -> None:
        store.write("v", [(b"a", EntityState(1, b"x"))])
        context = multiprocessing.get_context("fork")
        child = context.Process(target=store.write, args=("v", [(b"b", EntityState(2, b"y"))]))
        with warnings.catch_warnings():
            # That a process with threads may deadlock in a fork is known, and not what is looked at here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        child.join()
        assert child.exitcode == 0
        assert store.read([("v", b"a"), ("v", b"b")]) == [EntityState(1, b"x"), EntityState(2, b"y")]

    def test_a_full_disk_leaves_it_as_it_was(self, store: SqliteOnlineStore, tmp_path: Path) -> None:
        store.write("v", [(b"a", EntityState(1, b"x"))])
        # The page limit is the connection's, so it stands for a disk that is full for this writer.
        store._connection().execute("PRAGMA max_page_count = 8")
        with pytest.raises(StorageFull, match=r"online\.db"):
            store.write("v", [(bytes([n]), EntityState(2, b"y" * 10_000)) for n in range(20)])
        assert store.read([("v", b"a"), ("v", bytes([0]))]) == [EntityState(1, b"x"), None]

    def test_a_locked_file_is_unavailable(self, store: SqliteOnlineStore, tmp_path: Path) -> None:
        store._connection().execute("PRAGMA busy_timeout = 10")
        blocker = sqlite3.connect(tmp_path / "state" / "online.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as refused:
            store.write("v", [(b"a", EntityState(1, b"x"))])
        assert refused.value.retryable
        blocker.execute("ROLLBACK")
        blocker.close()
        store.write("v", [(b"a", EntityState(1, b"x"))])

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "online.db"
        path.write_bytes(b"this is not a database, whatever its name says" * 50)
        with pytest.raises(Corrupt, match=r"online\.db"):
            SqliteOnlineStore(path)
