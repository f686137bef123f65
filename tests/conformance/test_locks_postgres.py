"""Locks on a real Postgres server: the same suite, and what only happens between machines and when servers die."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from kit.servers import PostgresServer, running
from mainspring.core.database_locks import DatabaseLocks
from mainspring.core.errors import Conflict, Unavailable
from mainspring.core.lock_conformance import LocksConformance
from mainspring.core.locks import Locks
from mainspring.core.settings import Url

HOLDER = """
import sys
from mainspring.core.database_locks import DatabaseLocks
from mainspring.core.settings import Url
with DatabaseLocks(Url(sys.argv[1]), sys.argv[2]).hold("ingest"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def scope() -> str:
    return f"p{secrets.token_hex(6)}"


@contextmanager
def opened(url: Url, scope: str) -> Iterator[DatabaseLocks]:
    locks = DatabaseLocks(url, scope)
    try:
        yield locks
    finally:
        locks.close()


@pytest.fixture
def here(postgres_server: PostgresServer, scope: str) -> Iterator[Locks]:
    with opened(postgres_server.url, scope) as locks:
        yield locks


class TestDatabaseLocks(LocksConformance):
    @pytest.fixture
    def locks(self, here: Locks) -> Locks:
        return here

    @pytest.fixture
    def elsewhere(self, postgres_server: PostgresServer, scope: str) -> Iterator[Locks]:
        with opened(postgres_server.url, scope) as locks:
            yield locks


@contextmanager
def another_process(url: Url, scope: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, url.text, scope]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_holds_it_and_is_named(postgres_server: PostgresServer, scope: str, here: Locks) -> None:
    with (
        another_process(postgres_server.url, scope) as holder,
        pytest.raises(Conflict, match=rf"ingest is in use by mainspring process {holder.pid} on \S+"),
        here.hold("ingest", wait_s=0),
    ):
        pass


def test_a_waiter_gets_a_killed_holders_lock(postgres_server: PostgresServer, scope: str, here: Locks) -> None:
    with another_process(postgres_server.url, scope) as holder:
        killer = threading.Timer(0.2, os.kill, (holder.pid, signal.SIGKILL))
        killer.start()
        with here.hold("ingest", wait_s=30):
            assert holder.wait() == -signal.SIGKILL
        killer.join()


def test_another_projects_locks_are_others(postgres_server: PostgresServer, scope: str) -> None:
    with (
        another_process(postgres_server.url, scope),
        opened(postgres_server.url, f"{scope}2") as others,
        others.hold("ingest", wait_s=0),
    ):
        pass


def test_who_lost_the_lock_is_told_so(postgres_server: PostgresServer, here: Locks) -> None:
    """As after a restart of the server: somebody else may have been inside meanwhile."""
    lost = pytest.raises(Unavailable, match=r"The lock ingest on .* was lost")
    with lost as told, here.hold("ingest"):
        end_locking_sessions(postgres_server)
        with here.hold("ingest", wait_s=5):
            pass
    assert "run the command again" in str(told.value)
    assert "s3cret" not in str(told.value)
    with pytest.raises(ZeroDivisionError), here.hold("ingest", wait_s=5):
        1 / end_locking_sessions(postgres_server)
    with here.hold("ingest", wait_s=5):
        pass


def end_locking_sessions(server: PostgresServer) -> int:
    """Break every connection that may hold a lock; return 0."""
    with psycopg.connect(server.url.text, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE 'mainspring process %' AND pid <> pg_backend_pid()"
        )
    return 0


def test_a_server_that_is_gone_is_said_and_one_that_is_back_gives_locks_again() -> None:
    with running(PostgresServer) as server, opened(server.url, "p") as locks:
        with locks.hold("ingest"):
            pass
        server.stop()
        with pytest.raises(Unavailable, match="did not respond"), locks.hold("ingest", wait_s=0):
            pass
        server.start()
        with locks.hold("ingest", wait_s=0):
            pass
