"""Sessions of people who signed in, in the catalog."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.security.model import UserSession

user_sessions = sa.Table(
    "user_sessions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("account_id", sa.String(26), nullable=False, index=True),
    sa.Column("opened_at", sa.BigInteger, nullable=False),  # UTC epoch microseconds, like every instant
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("checked_at", sa.BigInteger, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)


class CatalogUserSessions:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, session: UserSession, now: int) -> None:
        row = {column.name: getattr(session, column.name) for column in user_sessions.columns}
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(user_sessions.delete().where(user_sessions.c.expires_at <= now))
            connection.execute(user_sessions.insert().values(row))

    def find(self, session_id: str) -> UserSession | None:
        query = sa.select(user_sessions).where(user_sessions.c.id == session_id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _session(row)

    def of(self, account_id: str) -> list[UserSession]:
        return self._listed(user_sessions.c.account_id == account_id)

    def all(self) -> list[UserSession]:
        return self._listed(sa.true())

    def _listed(self, condition: Any) -> list[UserSession]:
        query = sa.select(user_sessions).where(condition).order_by(user_sessions.c.opened_at)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [_session(row) for row in connection.execute(query)]

    def check(self, session_id: str, checked_at: int, sealed: bytes) -> None:
        mine = user_sessions.update().where(user_sessions.c.id == session_id)
        self._change(mine.values(checked_at=checked_at, sealed=sealed))

    def remove(self, session_id: str) -> bool:
        return self._change(user_sessions.delete().where(user_sessions.c.id == session_id)) > 0

    def remove_all(self, account_id: str) -> int:
        return self._change(user_sessions.delete().where(user_sessions.c.account_id == account_id))

    def _change(self, statement: Any) -> int:
        with catalog_errors(self._name), self._engine.begin() as connection:
            return int(connection.execute(statement).rowcount)


def _session(row: Any) -> UserSession:
    return UserSession(row.id, row.account_id, row.opened_at, row.expires_at, row.checked_at, bytes(row.sealed))
