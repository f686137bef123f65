"""The online store on Postgres: a read is one statement, a write one guarded upsert.

Table `slot`: the name and the mark of each view; one without a name is what was replaced, and its states are to go.
Table `entity`: a state a row, by slot and key.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import errors

from mainspring.core.errors import MainspringError, StorageFull, Unavailable
from mainspring.core.settings import Url
from mainspring.features.adapters import postgres_sql as sql
from mainspring.features.adapters.bounded import bounded
from mainspring.features.adapters.patience import Patience
from mainspring.features.model import EntityState, Mark

T = TypeVar("T")

_LONGEST = 1024  # bytes of a key; an index takes some 2,700
_CONNECT_S = 2


class PostgresOnlineStore:
    """States in the schema `mainspring_online` of a database. Each thread has its own connections.

    Args:
        url: `postgresql://user:password@host:port/database`; what stands after `?` goes to libpq (`sslmode=...`).
        project: Keeps the states of several projects in one database apart.
        patience: Instead of the usual.
    """

    remote = True
    longest_key: int | None = _LONGEST

    def __init__(self, url: Url, project: str, *, patience: Patience | None = None) -> None:
        self._name = url.shown
        self._project = project
        self._patience = patience or Patience(f"The online store {url.shown}", _passing)
        self._wanted = _parameters(url)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[psycopg.Connection[Any]] = []
        self._made = False

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        newest: dict[bytes, EntityState] = {}
        for key, state in rows:
            short = bounded(key, _LONGEST)
            held = newest.get(short)
            if held is None or (state.position, state.landed) >= (held.position, held.landed):
                newest[short] = state
        if newest:
            states = newest.values()
            columns = (
                list(newest),
                [state.position for state in states],
                [state.landed for state in states],
                [state.payload for state in states],
            )
            self._written(partial(_changed, sql.WRITE, (self._project, view, *columns)))

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        found: list[EntityState | None] = [None] * len(wanted)
        for number, position, payload, landed in self._found(wanted, "e.position, e.payload, e.landed"):
            found[number - 1] = EntityState(position, payload, landed)
        return found

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        found: list[bytes | None] = [None] * len(wanted)
        for number, payload in self._found(wanted, "e.payload"):
            found[number - 1] = payload
        return found

    def mark(self, view: str) -> Mark | None:
        rows = self._rows(sql.MARK, self._project, view)
        return Mark(*rows[0]) if rows else None

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        values = (self._project, view, mark.position, mark.landed, mark.newest, mark.until)
        self._written(partial(_changed, sql.ADVANCE, values))

    def clear(self, view: str) -> None:
        self._written(partial(_changed, sql.FORGET, (self._project, view)))
        self._sweep()

    def swap(self, view: str, by: str) -> None:
        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(sql.FORGET, (self._project, view))
                connection.execute(sql.RENAME, (view, self._project, by))

        self._written(partial(_changed, "SELECT 1", ()))
        self._written(work, self._patience.once)
        self._sweep()

    def views(self) -> list[str]:
        return sorted(view for (view,) in self._rows(sql.VIEWS, self._project))

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        newest, after = b"", ">="
        while rows := self._rows(sql.ENTITIES.format(after=after), self._project, view, newest):
            newest, after = rows[-1][0], ">"
            yield [(key, EntityState(position, payload, landed)) for key, position, payload, landed in rows]

    def ping(self) -> None:
        self._rows("SELECT 1")

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()

    def _sweep(self) -> None:
        """Delete the states of dropped slots, in pieces between which others can write."""
        for (slot,) in self._rows(sql.DOOMED, self._project):
            deleted = sql.SWEPT_AT_ONCE
            while deleted == sql.SWEPT_AT_ONCE:
                deleted = self._written(partial(_changed, sql.SWEEP, (slot, slot)))
            self._written(partial(_changed, sql.SWEPT, (slot,)))

    def _found(self, wanted: Sequence[tuple[str, bytes]], columns: str) -> list[tuple[Any, ...]]:
        """Return the number in `wanted`, from 1, and the columns of each state that is there."""
        places: dict[str, list[int]] = {}
        for place, (view, _) in enumerate(wanted):
            places.setdefault(view, []).append(place)
        asked: list[Any] = []
        for view, at in places.items():
            asked += ([bounded(wanted[place][1], _LONGEST) for place in at], self._project, view)
        if not asked:
            return []
        rows = self._rows(sql.found(len(places), columns), *asked)
        if len(places) == 1:
            return rows
        by_view = list(places.values())
        return [(by_view[which][number - 1] + 1, *values) for number, *values, which in rows]

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        def attempt(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = connection.cursor(binary=True).execute(query, values).fetchall()
            return rows

        return self._asked(self._patience.read, "reading", attempt)

    def _written(self, work: Callable[[psycopg.Connection[Any]], T], patience: Any = None) -> T:
        return self._asked(patience or self._patience.write, "writing", work)

    def _asked(self, patience: Any, purpose: str, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        def attempt() -> T:
            connection = self._connection(purpose)
            try:
                return work(connection)
            except errors.UndefinedTable:
                # The server was set up anew under us.
                self._made = False
                self._drop(purpose)
                raise
            except psycopg.Error:
                if connection.broken:
                    self._drop(purpose)
                raise

        try:
            result: T = patience(attempt)
        except psycopg.Error as error:
            raise self._translated(error) from error
        return result

    def _connection(self, purpose: str) -> psycopg.Connection[Any]:
        # A connection does not survive a fork.
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process, self._local.connections = os.getpid(), {}
        held: dict[str, psycopg.Connection[Any]] = self._local.connections
        if purpose not in held:
            held[purpose] = self._connect(sql.READING if purpose == "reading" else sql.WRITING)
        return held[purpose]

    def _connect(self, settings: dict[str, str]) -> psycopg.Connection[Any]:
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        connection = psycopg.connect(**{**self._wanted, "options": options}, autocommit=True, prepare_threshold=0)
        if not self._made:
            if not connection.execute(sql.MADE).fetchone()[0]:
                with connection.transaction():
                    connection.execute(sql.SCHEMA, prepare=False)
            self._made = True
        with self._lock:
            self._open = [each for each in self._open if not each.closed] + [connection]
        return connection

    def _drop(self, purpose: str) -> None:
        self._local.connections.pop(purpose).close()

    def _translated(self, error: psycopg.Error) -> MainspringError:
        if isinstance(error, (errors.DiskFull, errors.OutOfMemory)):
            return StorageFull(
                f"No space left in the online store {self._name}: {error.diag.message_primary}.",
                fix="give the server more disk, and run the command again.",
            )
        return Unavailable(f"The online store {self._name} refused: {error.diag.message_primary or error}.")


def _changed(query: str, values: Sequence[Any], connection: psycopg.Connection[Any]) -> int:
    """Return how many rows the statement changed."""
    return int(connection.execute(query, values).rowcount)


def _parameters(url: Url) -> dict[str, Any]:
    """Take the URL apart here: an error of a driver that took it apart would show it, password and all."""
    parts = urlsplit(url.text)
    given = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "dbname": unquote(parts.path.lstrip("/")) or None,
    }
    return {
        "connect_timeout": _CONNECT_S,
        "tcp_user_timeout": _CONNECT_S * 1000,
        "application_name": "mainspring",
        **{name: value for name, value in given.items() if value is not None},
        **dict(parse_qsl(parts.query)),
    }


def _passing(error: Exception) -> bool:
    """A server that is away, starts or stops, a connection that was cut, a deadlock, tables that are gone."""
    if isinstance(error, errors.UndefinedTable):
        return True
    if isinstance(error, psycopg.OperationalError):
        return not isinstance(error, (errors.DiskFull, errors.OutOfMemory, errors.QueryCanceled)) and not _denied(error)
    return isinstance(error, psycopg.InterfaceError)


def _denied(error: psycopg.Error) -> bool:
    return "authentication failed" in str(error) or "does not exist" in str(error)
