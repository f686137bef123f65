"""Every online store does what the port says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.depth import DEEP
from kit.servers import Server
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sealed import SealedOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.conformance import OnlineStoreConformance
from mainspring.features.ports import OnlineStore
from mainspring.security.data_keys import OneKey


class TestMemory(OnlineStoreConformance):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryOnlineStore()


class TestSqlite(OnlineStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteOnlineStore]:
        store = SqliteOnlineStore(tmp_path / "state" / "online.db")
        yield store
        store.close()


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


@pytest.mark.parametrize("kind", ["memory", "sqlite", "lmdb", "redis", "postgres"] if DEEP else ["memory"])
class TestSealed(OnlineStoreConformance):
    @pytest.fixture
    def store(self, kind: str, online_stores: Callable[[], dict[str, OnlineStore]]) -> OnlineStore:
        return SealedOnlineStore(online_stores()[kind], OneKey())
