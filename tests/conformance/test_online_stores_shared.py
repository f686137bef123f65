"""Online stores that processes share: writes are whole, whoever dies, and a server may go away and come back."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import elsewhere, prefork
from kit.elsewhere import KEYS, PROJECT, store_at, write_round
from kit.servers import PASSWORD, QUOTED, PostgresServer, RedisServer, Server, running
from mainspring.core.errors import Unavailable
from mainspring.core.settings import Url
from mainspring.features.adapters.patience import Patience
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.model import EntityState, Mark

STORES = ("sqlite", "lmdb", "redis", "postgres")
SERVERS = {"redis": (RedisServer, RedisOnlineStore), "postgres": (PostgresServer, PostgresOnlineStore)}


def doing(deed: Callable[..., None], address: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that does it."""
    command = [sys.executable, elsewhere.__file__, deed.__name__, address, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address with nothing of the project `shared` at it."""
    if request.param in ("sqlite", "lmdb"):
        return f"{request.param}:///{tmp_path / 'state' / 'online'}"
    found: str = request.getfixturevalue(f"{request.param}_server").url.text
    with closing(store_at(found)) as store:
        for view in store.views():
            store.clear(view)
    return found


@contextlib.contextmanager
def closing(store: Any) -> Iterator[Any]:
    try:
        yield store
    finally:
        store.close()


def positions(store: Any) -> set[int | None]:
    """The positions of all keys in one read, each of which its payload names too."""
    found = set()
    for state in store.read([("v", key) for key in KEYS]):
        assert state is None or state.payload == b"%d " % state.position * 200
        found.add(state and state.position)
    return found


def test_of_two_processes_that_write_at_once_the_newest_wins_and_rounds_stay_whole(address: str) -> None:
    with closing(store_at(address)) as store:
        write_round(store, 0)
        commands = [prefork.program(elsewhere, "race", address, *range(first, 31, 2)) for first in (1, 2)]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        seen = [0]
        while any(writer.poll() is None for writer in writers):
            (position,) = positions(store)
            assert position >= seen[-1]
            seen.append(position)
        assert [writer.communicate()[0] for writer in writers] == ["", ""]
        assert [writer.returncode for writer in writers] == [0, 0]
        assert positions(store) == {30}


def test_a_writer_that_is_killed_leaves_whole_rounds_and_no_lock(address: str) -> None:
    with closing(store_at(address)) as store:
        write_round(store, 0)
        last = 0
        for attempt in range(4):
            with doing(elsewhere.write_for_ever, address, last + 1) as writer:
                for _ in range(3):
                    told = int(writer.stdout.readline())
                time.sleep(attempt * 0.002)  # anywhere in a write
                writer.kill()
                rest = writer.stdout.read()  # also what was read ahead of a line, which `communicate` would leave out
            newest = int(rest.split()[-1]) if rest.split() else told
            (last,) = positions(store)
            assert told - 1 <= last <= newest
            write_round(store, last + 1)
            assert positions(store) == {last + 1}
            last += 1


@pytest.mark.parametrize("megabytes", [1, 2, 5])
@pytest.mark.parametrize("scheme", ["sqlite", "lmdb"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, scheme: str, megabytes: int) -> None:
    # A disk in memory, in a namespace of its own: it goes with the process.
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    tmpfs = f"mount -t tmpfs -o size={megabytes}m none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*mount, tmpfs], capture_output=True, check=False).returncode:
        pytest.skip("a process may not mount a disk of its own here")
    command = [sys.executable, elsewhere.__file__, "fill_the_disk", f"{scheme}:///{tmp_path / 'online'}"]
    told = subprocess.run([*mount, f"{tmpfs} && {shlex.join(command)}"], capture_output=True, text=True, check=True)
    said, first, *others, last = told.stdout.splitlines()
    assert (said, first, set(others), last) == ("full True True", "1", {"1000"} if others else set(), "0")
    assert others or megabytes < 3


class Waiting:
    """A clock that goes on only by waiting, so that a budget is spent in no time."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now, self.waits, self._meanwhile = 0.0, 0, meanwhile

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        self._meanwhile()


def patient(store: Any, waiting: Waiting) -> Any:
    """The same store, waiting by this clock."""
    patience = store._patience
    store._patience = Patience(patience._name, patience._passing, clock=waiting.clock, sleep=waiting.sleep)
    return store


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Any]]:
    """A server of the test's own, and the store on it."""
    kind, store = SERVERS[request.param]
    with running(kind) as server, closing(store(server.url, PROJECT)) as opened:
        yield server, opened


def test_a_server_that_goes_away_and_comes_back(server: tuple[Server, Any]) -> None:
    place, store = server
    waiting = Waiting()
    patient(store, waiting)
    write_round(store, 1)
    store.advance("v", Mark(1))
    place.stop()
    for ask in (lambda: store.read([("v", KEYS[0])]), lambda: write_round(store, 2), lambda: store.swap("w", "v"),
                lambda: store.mark("v"), store.ping):  # fmt: skip
        waiting.now += 10
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1") as refused:
            ask()
        assert refused.value.retryable
        assert PASSWORD not in str(refused.value)
    assert waiting.waits > 10
    before = waiting.waits
    with pytest.raises(Unavailable, match="a moment ago"):
        store.read([("v", KEYS[0])])
    assert waiting.waits == before
    place.start()
    with pytest.raises(Unavailable, match="a moment ago"):
        store.read([("v", KEYS[0])])
    waiting.now += 10
    assert positions(store) == {1}
    assert store.mark("v") == Mark(1)
    write_round(store, 2)
    assert positions(store) == {2}


def test_a_write_waits_for_a_server_that_is_started_again(server: tuple[Server, Any]) -> None:
    place, store = server
    write_round(store, 1)
    place.stop()

    def return_at_the_third() -> None:
        if waiting.waits == 3:
            place.start()

    waiting = Waiting(return_at_the_third)
    write_round(patient(store, waiting), 2)
    assert waiting.waits >= 3
    assert positions(store) == {2}


def test_a_connection_that_was_cut_is_opened_again_unnoticed(server: tuple[Server, Any]) -> None:
    place, store = server
    write_round(store, 1)
    assert positions(store) == {1}
    place.stop()
    place.start()
    assert positions(store) == {1}
    place.stop()
    place.start()
    write_round(store, 2)
    store.swap("w", "v")
    assert store.views() == ["w"]


def test_an_answer_that_comes_too_late_is_nobodys(redis_server: Server) -> None:
    with closing(RedisOnlineStore(redis_server.url, "late")) as store:
        store.write("v", [(key, EntityState(place, key)) for place, key in enumerate(KEYS)])
        redis_server.pause()
        try:
            with pytest.raises(Unavailable):
                store.read([("v", KEYS[1])])
        finally:
            redis_server.resume()
        time.sleep(0.6)  # until reads are tried again
        for place, key in enumerate(KEYS[:20]):
            assert store.read([("v", key)]) == [EntityState(place, key)]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_wrong_password_is_said_at_once_and_not_printed(request: pytest.FixtureRequest, kind: str) -> None:
    right = request.getfixturevalue(f"{kind}_server").url.text
    wrong = Url(right.replace(QUOTED, "wr0ng%2Fsecret"))
    waiting = Waiting()
    with closing(patient(SERVERS[kind][1](wrong, PROJECT), waiting)) as store:
        with pytest.raises(Unavailable) as refused:
            store.ping()
        chain: BaseException | None = refused.value
        while chain is not None:
            assert "wr0ng" not in str(chain)
            chain = chain.__cause__
        assert waiting.waits == 0
        assert "wr0ng" not in repr(store)
