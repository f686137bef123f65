"""Locks between machines: advisory locks of the Postgres server that has the catalog.

A lock belongs to a connection, not to a transaction or a row. When its holder dies, the server sees the connection end
and releases it at once; if a machine stops responding, after half a minute. A holder that lost its connection gets an
error at the end of its block (https://www.postgresql.org/docs/17/explicit-locking.html, 13.3.5). Between the two
instants the lock protects nothing: writes under it must be safe by themselves, as Delta's commits, the compare-and-set
of aliases and the claim of a job are.

A pooler between us and the server must keep a connection for as long as we do ("session pooling").
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from mainspring.core.catalog import catalog_errors, patience, sqlalchemy_url
from mainspring.core.errors import Conflict, MissingExtra, Unavailable
from mainspring.core.ids import check_id
from mainspring.core.locks import busy
from mainspring.core.settings import Url

_WAITED = "55P03"  # SQLSTATE of a lock that was not available in time
_KEEPALIVES = {"tcp_keepalives_idle": 15, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
_HOLDER = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory'"
    " AND l.granted AND l.objsubid = 1 AND l.classid::bigint = :high AND l.objid::bigint = :low"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class DatabaseLocks:
    """Locks shared by all processes that name the same database and scope.

    Args:
        url: A Postgres database.
        scope: Scope of the names, such as a project: the same name in another scope is another lock.

    Raises:
        MissingExtra: The driver is not installed.
    """

    def __init__(self, url: Url, scope: str) -> None:
        self._shown = url.shown
        self._scope = scope
        self._sessions = _engine(url)

    def within(self, scope: str) -> DatabaseLocks:
        check_id(scope, "scope of locks")
        inside = object.__new__(DatabaseLocks)
        inside._shown, inside._scope, inside._sessions = self._shown, f"{self._scope}/{scope}", self._sessions
        return inside

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 60.0) -> Iterator[None]:
        key = _key(self._scope, check_id(name, "lock"))
        with catalog_errors(self._shown):
            session = self._sessions.connect()
        try:
            with catalog_errors(self._shown):
                self._take(session, key, name, wait_s)
            try:
                yield
            except BaseException:
                with suppress(sa.exc.SQLAlchemyError, Unavailable):  # the error inside the block matters more
                    self._give_back(session, key, name)
                raise
            self._give_back(session, key, name)
        except BaseException:
            session.invalidate()  # releases everything that it holds
            raise
        finally:
            session.close()

    def close(self) -> None:
        """Close the connections that hold no lock."""
        self._sessions.dispose()

    def _take(self, session: sa.Connection, key: int, name: str, wait_s: float) -> None:
        if session.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar_one():
            return
        if wait_s > 0:
            limit = sa.text("SELECT set_config('lock_timeout', :limit, false)")
            session.execute(limit, {"limit": f"{max(1, round(wait_s * 1000))}ms"})
            try:
                session.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _WAITED:
                    raise
            else:
                return
        raise self._busy(session, key, name)

    def _busy(self, session: sa.Connection, key: int, name: str) -> Conflict:
        unsigned = key % 2**64
        found = session.execute(_HOLDER, {"high": unsigned >> 32, "low": unsigned % 2**32}).scalar()
        return busy(name, found or "another process")

    def _give_back(self, session: sa.Connection, key: int, name: str) -> None:
        fix = "check the result, and run the command again: finished parts are not repeated."
        what = f"The lock {name} on {self._shown} was lost"
        try:
            held = session.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": key}).scalar_one()
        except sa.exc.DBAPIError as error:
            raise Unavailable(f"{what}: the connection broke.", fix=fix) from error
        if not held:
            raise Unavailable(f"{what}: another process may have held it.", fix=fix)


def _key(scope: str, name: str) -> int:
    """Return the 64-bit key of a lock on the server."""
    return int.from_bytes(sha256(f"mainspring lock {scope}/{name}".encode()).digest()[:8], "big", signed=True)


def _engine(url: Url) -> sa.Engine:
    """Return an engine with as many connections as there are locks: waiting in the catalog's pool would deadlock."""
    parsed = sqlalchemy_url(url.text)
    who = f"mainspring process {os.getpid()} on {socket.gethostname()}"[:63]
    arguments = {**patience(parsed), "application_name": who}
    try:
        engine = sa.create_engine(
            parsed,
            isolation_level="AUTOCOMMIT",
            pool_size=2,
            max_overflow=-1,
            pool_pre_ping=True,
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("Locks on Postgres", "postgres") from error

    @event.listens_for(engine, "connect", insert=True)
    def configure(connection: Any, _record: object) -> None:
        connection.autocommit = True
        for name, value in _KEEPALIVES.items():
            connection.execute(f"SET {name} TO {value}")
        connection.autocommit = False

    return engine
