"""Encrypted online states: what a reader of the store sees, moves and finds of before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import redis

from kit.servers import PostgresServer, Server
from mainspring.core.errors import Corrupt
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sealed import SealedOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore
from mainspring.security.data_keys import OneKey

ANA, BEN = encode_key(["ana-7f3e9c21"]), encode_key(["ben-1a2b3c4d"])
KEY = OneKey()


def _write(store: OnlineStore, view: str) -> None:
    store.write(view, [(ANA, EntityState(5, b"amount-5518827364")), (BEN, EntityState(5, b"amount-9471625538"))])
    store.advance(view, Mark(5))


def _found(folder: Path) -> set[bytes]:
    """Return the marks of this test that are in a folder's files."""
    contents = b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())
    return {each for each in (b"ana-7f3e9c21", b"ben-1a2b3c4d", b"amount-5518827364") if each in contents}


def _to_disk(name: str, redis_server: Server, postgres_server: PostgresServer) -> None:
    """Wait until a server has written what it was told."""
    if name == "redis":
        with redis.Redis.from_url(redis_server.url.text) as client:
            client.set("last", "")  # it waits for writes of its own connection, and so for those before
            assert client.waitaof(1, 0, 30_000) == [1, 0]
    if name == "postgres":
        postgres_server.run("CHECKPOINT")


def test_no_file_of_any_store_has_keys_or_values(
    tmp_path: Path, redis_server: Server, postgres_server: PostgresServer
) -> None:
    stores: dict[str, tuple[Callable[[], OnlineStore], Path]] = {
        "sqlite": (lambda: SqliteOnlineStore(tmp_path / "sqlite" / "online.db"), tmp_path / "sqlite"),
        "lmdb": (lambda: LmdbOnlineStore(tmp_path / "lmdb"), tmp_path / "lmdb"),
        "redis": (lambda: RedisOnlineStore(redis_server.url, "sealed"), redis_server.folder),
        "postgres": (lambda: PostgresOnlineStore(postgres_server.url, "sealed"), postgres_server.folder),
    }
    for name, (opened, folder) in stores.items():
        store = opened()
        _write(SealedOnlineStore(store, KEY), "v")
        _to_disk(name, redis_server, postgres_server)
        assert _found(folder) == set(), name
        assert SealedOnlineStore(store, KEY).payloads([("v", ANA)]) == [b"amount-5518827364"]
        _write(store, "clear")
        _to_disk(name, redis_server, postgres_server)
        assert len(_found(folder)) == 3, name
        store.clear("clear")
        store.clear("sealed.v")
        store.close()


def test_states_in_clear_are_no_states_and_go_once_the_encrypted_ones_are_complete(tmp_path: Path) -> None:
    stored = SqliteOnlineStore(tmp_path / "online.db")
    for view in ("v", "w", "x"):
        _write(stored, view)
    assert len(_found(tmp_path)) == 3
    store = SealedOnlineStore(stored, KEY)
    assert store.views() == ["v", "w", "x"]
    assert (store.payloads([("v", ANA)]), store.mark("v")) == ([None], None)
    assert store.delete([("x", ANA)]) == 1  # an erasure does not wait for it
    store.write("v", [(ANA, EntityState(6, b"new"))])
    assert len(_found(tmp_path)) == 3
    store.advance("v", Mark(6))
    assert stored.views() == ["sealed.v", "w", "x"]
    _write(store, "w~")
    store.swap("w", "w~")
    store.clear("x")
    assert stored.views() == ["sealed.v", "sealed.w"]
    assert store.views() == ["v", "w"]
    _write(stored, "v")  # by a process that does not encrypt yet
    store.advance("v", Mark(7))
    assert stored.views() == ["sealed.v", "sealed.w"]
    stored.close()
    assert _found(tmp_path) == set()


def test_a_state_is_read_neither_as_anothers_nor_with_another_key() -> None:
    stored = MemoryOnlineStore()
    store = SealedOnlineStore(stored, KEY)
    _write(store, "v")
    (one, two) = _rows(stored.entities("sealed.v"))
    stored.write("sealed.v", [(one[0], EntityState(9, two[1].payload))])
    with pytest.raises(Corrupt):
        store.payloads([("v", ANA), ("v", BEN)])
    with pytest.raises(Corrupt):
        store.read([("v", ANA), ("v", BEN)])
    other = SealedOnlineStore(stored, OneKey(bytes(32)))
    assert other.payloads([("v", ANA)]) == [None]  # under another name
    with pytest.raises(Corrupt):
        list(other.entities("v"))


def _rows(pieces: Iterable[list[tuple[bytes, EntityState]]]) -> list[tuple[bytes, EntityState]]:
    return [row for piece in pieces for row in piece]
