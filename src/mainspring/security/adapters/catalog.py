"""Keys, ended sessions and audit events in the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict, NotFound
from mainspring.security.model import Action, ApiKey, AuditEntry, AuditEvent, AuditFilter

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("scopes", sa.String(128), nullable=False),  # sorted, one space between
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # UTC epoch microseconds, like every instant
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("created_by", sa.String(256), nullable=False, server_default=""),
)

ended_sessions = sa.Table(
    "ended_sessions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)

audit_events = sa.Table(
    "audit_events",
    metadata,
    # A plain INTEGER on SQLite, the only type with automatic numbers there.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)


class CatalogKeyStore:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, key: ApiKey) -> None:
        row = {
            "id": key.id,
            "name": key.name,
            "scopes": " ".join(sorted(key.scopes)),
            "digest": key.digest,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
            "created_by": key.created_by,
        }
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(api_keys.insert().values(row))
            except sa.exc.IntegrityError as error:
                raise Conflict(f"The key {key.id} already exists.") from error

    def find(self, key_id: str) -> ApiKey | None:
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        return None if row is None else _key(row)

    def all(self) -> list[ApiKey]:
        query = sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(query)]

    def mark(self) -> str:
        # Keys are only added and revoked; a restored backup may have the same number, but not these instants.
        columns = api_keys.c
        query = sa.select(
            sa.func.count(), sa.func.count(columns.revoked_at), sa.func.max(columns.id), sa.func.max(columns.revoked_at)
        ).select_from(api_keys)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return " ".join(map(str, connection.execute(query).one()))

    def revoke(self, key_id: str, at: int) -> None:
        mine = api_keys.c.id == key_id
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(api_keys.update().where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=at))
            known = connection.execute(sa.select(api_keys.c.id).where(mine)).one_or_none()
        if known is None:
            raise NotFound(f"There is no key {key_id}.", fix="run `mainspring keys list`.")


def _key(row: Any) -> ApiKey:
    scopes = frozenset(Action(scope) for scope in row.scopes.split())
    return ApiKey(
        row.id, row.name, scopes, bytes(row.digest), row.created_at, row.expires_at, row.revoked_at, row.created_by
    )


class CatalogEndedSessions:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, session_id: str, expires_at: int, now: int) -> bool:
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(ended_sessions.delete().where(ended_sessions.c.expires_at <= now))
                    connection.execute(ended_sessions.insert().values(id=session_id, expires_at=expires_at))
            except sa.exc.IntegrityError:  # it was ended already
                return False
        return True

    def holds(self, session_id: str) -> bool:
        query = sa.select(ended_sessions.c.id).where(ended_sessions.c.id == session_id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return connection.execute(query).one_or_none() is not None


def _storable(text: str) -> str:
    """Return text that every database accepts. Postgres rejects NUL, and none stores half of a surrogate pair; a
    caller's text must not prevent the logging of an event.
    """
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


class CatalogAuditLog:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def append(self, events: Sequence[AuditEvent], *, unless_among: int = 0) -> None:
        added = [
            AuditEvent(e.at, _storable(e.actor), _storable(e.action), _storable(e.resource), _storable(e.detail))
            for e in events
        ]
        if not added:
            return
        with catalog_errors(self._name), self._engine.connect() as connection:
            if unless_among:
                sqlite = self._engine.dialect.name == "sqlite"
                connection.exec_driver_sql(
                    "BEGIN IMMEDIATE" if sqlite else "LOCK TABLE audit_events IN SHARE ROW EXCLUSIVE MODE"
                )
                there = set(_newest(connection, unless_among))
                added = [event for event in added if event not in there]
            if added:
                connection.execute(audit_events.insert(), [asdict(event) for event in added])
            connection.commit()

    def read(self, limit: int = 100) -> list[AuditEvent]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return _newest(connection, limit)

    def search(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        columns = audit_events.c
        query = sa.select(audit_events).where(columns.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(columns.at < wanted.until)
        if before is not None:
            query = query.where(columns.seq < before)
        if wanted.action:
            query = query.where(columns.action.istartswith(wanted.action, autoescape=True))
        for name in ("actor", "resource", "detail"):
            if part := getattr(wanted, name):
                query = query.where(columns[name].icontains(part, autoescape=True))
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query.order_by(columns.seq.desc()).limit(limit))
            return [AuditEntry(row.seq, _event(row)) for row in rows]


def _newest(connection: sa.Connection, limit: int) -> list[AuditEvent]:
    query = sa.select(audit_events).order_by(audit_events.c.seq.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query)]


def _event(row: Any) -> AuditEvent:
    return AuditEvent(row.at, row.actor, row.action, row.resource, row.detail)
