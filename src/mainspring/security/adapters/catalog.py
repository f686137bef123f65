"""Keys and ended sessions in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict, NotFound
from mainspring.security.adapters.accounts import access_changes, read_holders
from mainspring.security.model import ApiKey, Holder, KeyScope

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
    sa.Column("owner", sa.String(26), nullable=False, server_default=""),
)

ended_sessions = sa.Table(
    "ended_sessions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
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
            "owner": key.owner,
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
            return None if row is None else _key(row, read_holders(connection, row.owner) if row.owner else {})

    def all(self) -> list[ApiKey]:
        query = sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query).all()
            holders = read_holders(connection) if any(row.owner for row in rows) else {}
            return [_key(row, holders) for row in rows]

    def mark(self) -> str:
        # Keys are only added and revoked; a restored backup may have the same number, but not these instants.
        columns = api_keys.c
        query = sa.select(
            sa.func.count(), sa.func.count(columns.revoked_at), sa.func.max(columns.id), sa.func.max(columns.revoked_at)
        ).select_from(api_keys)
        with catalog_errors(self._name), self._engine.connect() as connection:
            changed = connection.execute(sa.select(access_changes.c.mark)).scalar_one_or_none()
            return " ".join(map(str, (*connection.execute(query).one(), changed)))

    def revoke(self, key_id: str, at: int) -> None:
        mine = api_keys.c.id == key_id
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(api_keys.update().where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=at))
            known = connection.execute(sa.select(api_keys.c.id).where(mine)).one_or_none()
        if known is None:
            raise NotFound(f"There is no key {key_id}.", fix="run `mainspring keys list`.")


def _key(row: Any, holders: Mapping[str, Holder]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(KeyScope(scope) for scope in row.scopes.split()),
        digest=bytes(row.digest),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        created_by=row.created_by,
        owner=row.owner,
        holder=holders.get(row.owner),
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
