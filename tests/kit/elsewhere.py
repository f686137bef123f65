"""What another process does to an online store: `python tests/kit/elsewhere.py DEED ADDRESS`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from itertools import count
from typing import Any

import lmdb

from mainspring.core.errors import MainspringError, StorageFull
from mainspring.core.settings import Url
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.lmdb_file import opened
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.model import EntityState
from mainspring.features.ports import OnlineStore

PROJECT = "shared"
KEYS = [number.to_bytes(2, "big") for number in range(1_000)]


def store_at(address: str) -> OnlineStore:
    url = Url(address)
    match url.scheme:
        case "sqlite":
            return SqliteOnlineStore(url.path)
        case "lmdb":
            return LmdbOnlineStore(url.path)
        case "redis":
            return RedisOnlineStore(url, PROJECT)
        case _:
            return PostgresOnlineStore(url, PROJECT)


def write_round(store: OnlineStore, position: int) -> None:
    """Write every key at one position, which the payloads name."""
    store.write("v", [(key, EntityState(position, b"%d " % position * 200)) for key in KEYS])


def race(address: str) -> None:
    """Write the positions that are given on the command line, once somebody says go."""
    store = store_at(address)
    print("ready", flush=True)
    sys.stdin.readline()
    for position in map(int, sys.argv[3:]):
        write_round(store, position)


def write_for_ever(address: str) -> None:
    """Say each position, then write it."""
    store = store_at(address)
    start = (store.position("v") or 0) + int(sys.argv[3])
    for position in count(start):
        print(position, flush=True)
        write_round(store, position)


def hold_a_snapshot(address: str) -> None:
    """Stay in the middle of a read of an LMDB file."""
    with opened(Url(address).path).reading() as transaction:
        print(transaction.id(), flush=True)
        sys.stdin.readline()


def fill_the_disk(address: str) -> None:
    """Write view after view until one does not fit; say what comes of it and how many rows each view then has."""
    store = store_at(address)
    store.write("first", [(KEYS[0], EntityState(0, b"there"))])
    views = ["first"]
    for number in range(1, 100):
        views.append(f"v{number}")
        try:
            store.write(views[-1], [(key, EntityState(number, b"x" * 1_000)) for key in KEYS])
        except StorageFull as error:
            print("full", "online" in error.what, error.fix is not None)
            break
    for view in views:
        print(sum(state is not None for state in store.read([(view, key) for key in KEYS])))


def read_all(address: str) -> None:
    """Read every key, or say why not."""
    try:
        positions = {state and state.position for state in store_at(address).read([("v", key) for key in KEYS])}
        print(positions)
    except MainspringError as error:
        print(type(error).__name__)


def write_large(address: str) -> None:
    """Write as many megabytes as are asked for."""
    rows = [(key, EntityState(1, b"z" * 1_000_000)) for key in KEYS[: int(sys.argv[3])]]
    store_at(address).write("large", rows)


def die_reading(address: str) -> None:
    """Begin reads of an LMDB file until it takes no more, and die in the middle of all of them."""
    held = []
    with contextlib.suppress(lmdb.ReadersFullError):
        while True:
            held.append(opened(Url(address).path)._env.begin())
    os.kill(os.getpid(), signal.SIGKILL)


def die_sweeping(address: str) -> None:
    """Clear a view, and die before its states are deleted."""
    store: Any = store_at(address)
    store._sweep = lambda: os.kill(os.getpid(), signal.SIGKILL)
    store.clear("v")


DEEDS = {
    deed.__name__: deed
    for deed in (
        race, write_for_ever, hold_a_snapshot, fill_the_disk, read_all, write_large, die_reading, die_sweeping
    )
}  # fmt: skip

if __name__ == "__main__":
    DEEDS[sys.argv[1]](sys.argv[2])
