"""The online stores that are files: who may read them, who shares them, and what is said of a damaged one."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import elsewhere
from mainspring.core.errors import Corrupt, StorageFull, Unavailable
from mainspring.features.adapters import lmdb_file
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.model import EntityState, Mark

EMBEDDED: dict[str, Callable[[Path], Any]] = {"sqlite": SqliteOnlineStore, "lmdb": LmdbOnlineStore}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "online"


@pytest.fixture(params=EMBEDDED)
def opened(request: pytest.FixtureRequest, path: Path) -> Iterator[Callable[[], Any]]:
    """Opens a store on the one file, each time anew."""
    stores: list[Any] = []

    def another() -> Any:
        stores.append(EMBEDDED[request.param](path))
        return stores[-1]

    yield another
    for store in stores:
        store.close()


@pytest.fixture
def lmdb(path: Path) -> Iterator[LmdbOnlineStore]:
    store = LmdbOnlineStore(path)
    yield store
    store.close()


def test_its_files_are_private(opened: Callable[[], Any], path: Path) -> None:
    opened().write("v", [(b"a", EntityState(1, b"x"))])
    modes = {file: stat.S_IMODE(file.stat().st_mode) for file in path.parent.rglob("*")}
    assert {mode for file, mode in modes.items() if file.is_file()} == {0o600}
    assert {mode for file, mode in modes.items() if file.is_dir()} <= {0o700}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_store_on_the_file_sees_what_was_written(opened: Callable[[], Any]) -> None:
    store, other = opened(), opened()
    store.write("v", [(b"a", EntityState(1, b"x"))])
    store.advance("v", Mark(1))
    assert other.read([("v", b"a")]) == [EntityState(1, b"x")]
    assert other.mark("v") == Mark(1)
    store.close()
    other.write("v", [(b"a", EntityState(2, b"y"))])
    assert other.read([("v", b"a")]) == store.read([("v", b"a")]) == [EntityState(2, b"y")]


def test_it_works_again_after_close(opened: Callable[[], Any]) -> None:
    store = opened()
    store.write("v", [(b"a", EntityState(1, b"x"))])
    store.close()
    store.close()
    assert store.read([("v", b"a")]) == [EntityState(1, b"x")]


def test_no_byte_of_a_deleted_state_is_left_in_its_files(opened: Callable[[], Any], path: Path) -> None:
    store, other = opened(), opened()
    others = [(b"ben%04d" % number, EntityState(number, b"x" * (number % 90))) for number in range(1_000)]
    for position in range(4):
        store.write("v", [(b"ana", EntityState(position, b"personal" * position))])
        store.write("v", others)
    store.advance("v", Mark(7))
    for there in (1, 0):
        assert store.delete([("v", b"ana")]) == there
        files = [file for file in path.parent.rglob("*") if file.is_file()]
        assert [file for file in files if any(each in file.read_bytes() for each in (b"ana", b"personal"))] == []
        assert [row for piece in other.entities("v") for row in piece] == others
        assert (other.mark("v"), other.views()) == (Mark(7), ["v"])


def test_a_long_read_delays_a_deletion_and_a_repetition_completes_it(
    path: Path, lmdb: LmdbOnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "_PATIENCE_S", 0.2)
    lmdb.write("v", [(b"ana", EntityState(1, b"personal")), (b"ben", EntityState(1, b"x"))])
    lmdb.close()
    reads = "import lmdb, sys; held = lmdb.open(sys.argv[1]).begin(); print('reads', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", reads, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
        with pytest.raises(Unavailable, match="long read"):
            lmdb.delete([("v", b"ana")])
        assert b"personal" in (path / "data.mdb").read_bytes()
        reader.communicate()
    assert lmdb.delete([("v", b"ana")]) == 0
    assert b"personal" not in (path / "data.mdb").read_bytes()
    assert lmdb.read([("v", b"ben")]) == [EntityState(1, b"x")]


def test_any_thread_may_use_it(opened: Callable[[], Any]) -> None:
    store = opened()
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


def test_a_child_process_opens_its_own(opened: Callable[[], Any]) -> None:
    store = opened()
    store.write("v", [(b"a", EntityState(1, b"x"))])
    assert store.read([("v", b"a")]) == [EntityState(1, b"x")]

    def work() -> None:
        assert store.read([("v", b"a")]) == [EntityState(1, b"x")]
        store.write("v", [(b"b", EntityState(2, b"y"))])
        store.close()

    child = multiprocessing.get_context("fork").Process(target=work)
    with warnings.catch_warnings():
        # That a process with threads may deadlock in a fork is known, and not what is looked at here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join()
    assert child.exitcode == 0
    assert store.read([("v", b"a"), ("v", b"b")]) == [EntityState(1, b"x"), EntityState(2, b"y")]
    store.write("v", [(b"b", EntityState(3, b"z"))])
    assert store.read([("v", b"b")]) == [EntityState(3, b"z")]


@pytest.mark.parametrize("scheme", EMBEDDED)
def test_what_is_no_such_file_is_refused_with_the_way_out(path: Path, scheme: str) -> None:
    file = path if scheme == "sqlite" else path / "data.mdb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"this is not a database, whatever its name says" * 500)
    with pytest.raises(Corrupt, match=str(path)) as refused:
        EMBEDDED[scheme](path)
    assert "mainspring materialize" in str(refused.value.fix)
    assert str(path) in str(refused.value.fix)


@pytest.mark.parametrize("scheme", EMBEDDED)
def test_a_file_that_was_cut_short_is_refused(path: Path, scheme: str) -> None:
    # In a process of its own, which a page that is not there would end.
    store = EMBEDDED[scheme](path)
    store.write("v", [(key, EntityState(1, b"x" * 500)) for key in elsewhere.KEYS])
    store.close()
    file = path if scheme == "sqlite" else path / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    said = subprocess.run(
        [sys.executable, elsewhere.__file__, "read_all", f"{scheme}:///{path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "Corrupt\n"


def test_sqlite_with_a_limit_on_its_pages_stays_as_it_was(path: Path) -> None:
    store = SqliteOnlineStore(path)
    store.write("v", [(b"a", EntityState(1, b"x"))])
    store._file.connection().execute("PRAGMA max_page_count = 8")
    with pytest.raises(StorageFull, match="online"):
        store.write("v", [(bytes([n]), EntityState(2, b"y" * 10_000)) for n in range(20)])
    assert store.read([("v", b"a"), ("v", bytes([0]))]) == [EntityState(1, b"x"), None]
    store.close()


def test_a_locked_sqlite_file_is_unavailable(path: Path) -> None:
    store = SqliteOnlineStore(path)
    store._file.connection().execute("PRAGMA busy_timeout = 10")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as refused:
        store.write("v", [(b"a", EntityState(1, b"x"))])
    assert refused.value.retryable
    blocker.execute("ROLLBACK")
    blocker.close()
    store.write("v", [(b"a", EntityState(1, b"x"))])
    store.close()


def test_lmdb_grows_as_it_is_filled_by_whichever_process(lmdb: LmdbOnlineStore, path: Path) -> None:
    large = b"x" * 1_000_000
    lmdb.write("v", [(bytes([n]), EntityState(1, large)) for n in range(100)])
    assert lmdb.read([("v", bytes([99]))]) == [EntityState(1, large)]
    subprocess.run([sys.executable, elsewhere.__file__, "write_large", f"lmdb:///{path}", "200"], check=True)
    assert [state and len(state.payload) for state in lmdb.read([("large", elsewhere.KEYS[199])])] == [1_000_000]
    assert lmdb.read([("v", bytes([0]))]) == [EntityState(1, large)]
    subprocess.run([sys.executable, elsewhere.__file__, "write_large", f"lmdb:///{path}", "400"], check=True)
    lmdb.write("v", [(b"after", EntityState(2, b"grown elsewhere"))])
    assert lmdb.read([("v", b"after")]) == [EntityState(2, b"grown elsewhere")]


def test_lmdb_grows_while_threads_read(lmdb: LmdbOnlineStore) -> None:
    lmdb.write("v", [(key, EntityState(0, b"x")) for key in elsewhere.KEYS])
    wanted = [("v", key) for key in elsewhere.KEYS]
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert lmdb.read(wanted) == [EntityState(0, b"x")] * len(wanted)
        except BaseException as failure:
            failures.append(failure)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(100):
        lmdb.write("w", [(bytes([number, part]), EntityState(1, b"y" * 1_000_000)) for part in range(3)])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_lmdb_uses_again_what_a_killed_reader_held(lmdb: LmdbOnlineStore, path: Path) -> None:
    lmdb.write("v", [(key, EntityState(0, b"x" * 1_000)) for key in elsewhere.KEYS])
    reader = subprocess.Popen(
        [sys.executable, elsewhere.__file__, "hold_a_snapshot", f"lmdb:///{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline()
    reader.kill()
    reader.communicate()
    for position in range(1, 4):
        elsewhere.write_round(lmdb, position)
    before = (path / "data.mdb").stat().st_size
    for position in range(4, 30):
        elsewhere.write_round(lmdb, position)
    assert (path / "data.mdb").stat().st_size < 1.1 * before


def test_lmdb_is_read_by_more_than_it_has_places_for_after_many_were_killed(lmdb: LmdbOnlineStore, path: Path) -> None:
    lmdb.write("v", [(b"a", EntityState(0, b"x"))])
    command = [sys.executable, elsewhere.__file__, "die_reading", f"lmdb:///{path}"]
    subprocess.run(command, check=False, capture_output=True)
    assert lmdb.read([("v", b"a")]) == [EntityState(0, b"x")]
    subprocess.run(command, check=False, capture_output=True)
    subprocess.run([sys.executable, elsewhere.__file__, "read_all", f"lmdb:///{path}"], check=True)


@pytest.mark.parametrize("scheme", EMBEDDED)
def test_a_sweep_that_was_cut_short_is_finished_later(path: Path, scheme: str) -> None:
    store = EMBEDDED[scheme](path)
    store.write("v", [(number.to_bytes(4, "big"), EntityState(1, b"x" * 100)) for number in range(25_000)])
    store.close()
    victim = [sys.executable, elsewhere.__file__, "die_sweeping", f"{scheme}:///{path}"]
    assert subprocess.run(victim, check=False).returncode == -9
    store = EMBEDDED[scheme](path)
    assert store.views() == []
    store.write("v", [(b"a", EntityState(1, b"again"))])
    store.swap("w", "v")
    assert store.read([("w", b"a"), ("w", bytes(4)), ("v", bytes(4))]) == [EntityState(1, b"again"), None, None]
    if scheme == "sqlite":
        left = store._file.connection().execute("SELECT count(*) FROM entity").fetchone()[0]
    else:
        with store._file().reading() as transaction:
            left = sum(key[:1] == b"e" for key in transaction.cursor().iternext(values=False))
    assert left == 1
    store.close()
