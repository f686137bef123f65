"""The online store on Postgres: a read is one statement, a write is one guarded upsert.

Table `slot`: the name and the mark of each view; a slot without a name was replaced, and its states are to be deleted.
Table `entity`: one state per row, by slot and key.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import errors, sql

from mainspring.core.errors import MainspringError, StorageFull, Unavailable
from mainspring.core.settings import Url
from mainspring.features.adapters.bounded import bounded
from mainspring.features.adapters.patience import Patience
from mainspring.features.model import EntityState, Mark

T = TypeVar("T")

_LONGEST = 1024  # maximum bytes of a key; an index allows some 2,700
_CONNECT_S = 2
SWEPT_AT_ONCE = 10_000
SCHEMA = "mainspring_online"
MADE = "SELECT to_regclass('entity') IS NOT NULL"
# The first process creates the tables; the lock's number is the name in bytes.
LOCK = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'mainspri', 'big')})"
# Asked first: CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it exists.
THERE = "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL"
TABLES = """
CREATE TABLE IF NOT EXISTS slot (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text NOT NULL, view text,
    position bigint, landed bigint, newest bigint, until bigint, UNIQUE (project, view)
);
CREATE TABLE IF NOT EXISTS entity (
    slot bigint NOT NULL, key bytea NOT NULL, position bigint NOT NULL, landed bigint NOT NULL, payload bytea NOT NULL,
    PRIMARY KEY (slot, key)
);
ALTER TABLE entity ALTER COLUMN payload SET STORAGE EXTERNAL;
"""
# For one view; a statement for several views combines several of these.
FOUND = """
SELECT {columns} FROM slot AS s
CROSS JOIN unnest(%b::bytea[]) WITH ORDINALITY AS w (key, n)
JOIN entity AS e ON e.slot = s.id AND e.key = w.key WHERE s.project = %b AND s.view = %b
"""
# The slot's row stays locked until the end, so that the slot is not dropped during a write.
SLOT = """
INSERT INTO slot AS held (project, view) VALUES (%b, %b)
ON CONFLICT (project, view) DO UPDATE SET until = held.until RETURNING id
"""
WRITE = f"""
WITH mine AS ({SLOT})
INSERT INTO entity AS held (slot, key, position, landed, payload)
SELECT mine.id, w.* FROM mine, unnest(%b::bytea[], %b::bigint[], %b::bigint[], %b::bytea[]) AS w
ON CONFLICT (slot, key) DO UPDATE
SET position = excluded.position, landed = excluded.landed, payload = excluded.payload
WHERE (excluded.position, excluded.landed) >= (held.position, held.landed)
"""
ADVANCE = """
INSERT INTO slot AS held (project, view, position, landed, newest, until)
VALUES (%b, %b, %b, %b, %b, %b)
ON CONFLICT (project, view) DO UPDATE
SET position = excluded.position, landed = excluded.landed, newest = excluded.newest, until = excluded.until
WHERE held.position IS NULL OR (excluded.position, excluded.landed, excluded.newest, excluded.until)
   >= (held.position, held.landed, held.newest, held.until)
"""
MARK = """
SELECT position, landed, newest, until FROM slot
WHERE project = %b AND view = %b AND position IS NOT NULL
"""
DELETE = """
DELETE FROM entity AS e USING slot AS s
WHERE e.slot = s.id AND s.project = %b AND s.view = %b AND e.key = ANY(%b::bytea[])
"""
REWRITE = "VACUUM (FULL) entity"  # the bytes of deleted rows stay in their pages otherwise
FORGET = "UPDATE slot SET view = NULL WHERE project = %b AND view = %b"
RENAME = "UPDATE slot SET view = %b WHERE project = %b AND view = %b"
VIEWS = """
SELECT view FROM slot WHERE project = %b AND view IS NOT NULL
AND (position IS NOT NULL OR EXISTS (SELECT FROM entity WHERE slot = id))
"""
# By the primary key, piece by piece.
ENTITIES = """
SELECT e.key, e.position, e.payload, e.landed FROM entity AS e
WHERE e.slot = (SELECT id FROM slot WHERE project = %b AND view = %b) AND e.key {after} %b
ORDER BY e.key LIMIT 1000
"""
DOOMED = "SELECT id FROM slot WHERE project = %b AND view IS NULL"
SWEEP = f"""
DELETE FROM entity WHERE slot = %b AND key IN (
    SELECT key FROM entity WHERE slot = %b LIMIT {SWEPT_AT_ONCE} FOR UPDATE SKIP LOCKED)
"""
SWEPT = """
DELETE FROM slot WHERE id = %b AND view IS NULL
AND NOT EXISTS (SELECT FROM entity WHERE slot = id)
"""
# Reads always use the keys in this order, independent of the planner's statistics of recently filled tables.
READING = {
    "statement_timeout": "1000",
    "plan_cache_mode": "force_generic_plan",
    "join_collapse_limit": "1",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
WRITING = {"statement_timeout": "60000", "lock_timeout": "10000", "jit": "off"}


@lru_cache
def found(views: int, columns: str) -> str:
    if views == 1:
        return FOUND.format(columns=f"n, {columns}")
    return " UNION ALL ".join(FOUND.format(columns=f"n, {columns}, {which}") for which in range(views))


class PostgresOnlineStore:
    """States in a schema of a database. Each thread has its own connections.

    Args:
        url: `postgresql://user:password@host:port/database`; the part after `?` is passed to libpq (`sslmode=...`).
        project: Separates the states of several projects in one schema.
        schema: Its name, which has no spaces; it is created if missing.
        patience: Replaces the default retry policy.
    """

    remote = True
    longest_key: int | None = _LONGEST

    def __init__(self, url: Url, project: str, *, schema: str = SCHEMA, patience: Patience | None = None) -> None:
        self._name = url.shown
        self._project = project
        self._schema, self._path = schema, f'"{schema}"'
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
            self._written(partial(_changed, WRITE, (self._project, view, *columns)))

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        states: list[EntityState | None] = [None] * len(wanted)
        for number, position, payload, landed in self._found(wanted, "e.position, e.payload, e.landed"):
            states[number - 1] = EntityState(position, payload, landed)
        return states

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        contents: list[bytes | None] = [None] * len(wanted)
        for number, payload in self._found(wanted, "e.payload"):
            contents[number - 1] = payload
        return contents

    def mark(self, view: str) -> Mark | None:
        rows = self._rows(MARK, self._project, view)
        return Mark(*rows[0]) if rows else None

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        values = (self._project, view, mark.position, mark.landed, mark.newest, mark.until)
        self._written(partial(_changed, ADVANCE, values))

    def clear(self, view: str) -> None:
        self._written(partial(_changed, FORGET, (self._project, view)))
        self._sweep()

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        keys: dict[str, list[bytes]] = {}
        for view, key in names:
            keys.setdefault(view, []).append(bounded(key, _LONGEST))
        deleted = 0
        for view, of in keys.items():
            deleted += self._written(partial(_changed, DELETE, (self._project, view, of)))
        if keys:
            self._written(partial(_changed, REWRITE, ()))
        return deleted

    def swap(self, view: str, by: str) -> None:
        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(FORGET, (self._project, view))
                connection.execute(RENAME, (view, self._project, by))

        self._written(partial(_changed, "SELECT 1", ()))
        self._written(work, self._patience.once)
        self._sweep()

    def views(self) -> list[str]:
        return sorted(view for (view,) in self._rows(VIEWS, self._project))

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        newest, after = b"", ">="
        while rows := self._rows(ENTITIES.format(after=after), self._project, view, newest):
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
        """Delete the states of dropped slots, in pieces between which other processes can write."""
        for (slot,) in self._rows(DOOMED, self._project):
            deleted = SWEPT_AT_ONCE
            while deleted == SWEPT_AT_ONCE:
                deleted = self._written(partial(_changed, SWEEP, (slot, slot)))
            self._written(partial(_changed, SWEPT, (slot,)))

    def _found(self, wanted: Sequence[tuple[str, bytes]], columns: str) -> list[tuple[Any, ...]]:
        """Return for each existing state its number in `wanted`, from 1, and its columns."""
        places: dict[str, list[int]] = {}
        for place, (view, _) in enumerate(wanted):
            places.setdefault(view, []).append(place)
        arguments: list[Any] = []
        for view, positions in places.items():
            arguments += ([bounded(wanted[place][1], _LONGEST) for place in positions], self._project, view)
        if not arguments:
            return []
        rows = self._rows(found(len(places), columns), *arguments)
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
                # The server was set up again meanwhile.
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
            held[purpose] = self._connect(READING if purpose == "reading" else WRITING)
        return held[purpose]

    def _connect(self, settings: dict[str, str]) -> psycopg.Connection[Any]:
        # The names of tables are found in this schema alone.
        options = " ".join(f"-c {name}={value}" for name, value in {**settings, "search_path": self._path}.items())
        connection = psycopg.connect(**{**self._wanted, "options": options}, autocommit=True, prepare_threshold=0)
        if not self._made:
            if not connection.execute(MADE).fetchone()[0]:
                with connection.transaction():
                    connection.execute(LOCK)
                    if not connection.execute(THERE, (self._schema,)).fetchone()[0]:
                        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema)))
                    connection.execute(TABLES, prepare=False)
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
                fix="give the server more disk space, and run the command again.",
            )
        return Unavailable(
            f"The online store {self._name} rejected the command: {error.diag.message_primary or error}."
        )


def _changed(query: str, values: Sequence[Any], connection: psycopg.Connection[Any]) -> int:
    """Return the number of rows that the statement changed."""
    return int(connection.execute(query, values).rowcount)


def _parameters(url: Url) -> dict[str, Any]:
    """Parse the URL here: an error of the driver's own parser would show it, including the password."""
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
    """Return whether an error is transient: the server is unreachable, starts or stops, a lost connection, a deadlock,
    missing tables.
    """
    if isinstance(error, errors.UndefinedTable):
        return True
    if isinstance(error, psycopg.OperationalError):
        return not isinstance(error, (errors.DiskFull, errors.OutOfMemory, errors.QueryCanceled)) and not _denied(error)
    return isinstance(error, psycopg.InterfaceError)


def _denied(error: psycopg.Error) -> bool:
    return "authentication failed" in str(error) or "does not exist" in str(error)
