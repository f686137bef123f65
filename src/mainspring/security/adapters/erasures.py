"""Erasures of subjects, and legal holds, in the catalog."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.security.model import Erasure, LegalHold

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("entity", sa.String(128), nullable=False),
    sa.Column("subjects", sa.LargeBinary, nullable=False),  # digests of 32 bytes, one after another
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("done_at", sa.BigInteger),
    sa.Column("receipt", sa.Text, nullable=False),
)
legal_holds = sa.Table(
    "legal_holds",
    metadata,
    sa.Column("subject", sa.LargeBinary(32), primary_key=True),
    sa.Column("entity", sa.String(128), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("held_at", sa.BigInteger, nullable=False),
    sa.Column("held_by", sa.Text, nullable=False),
)
_DIGEST = 32
_NEWEST = sa.select(erasures).order_by(erasures.c.began_at.desc(), erasures.c.id.desc())


class CatalogErasures:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def begin(self, erasure: Erasure) -> None:
        row = {column.name: getattr(erasure, column.name) for column in erasures.columns}
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(erasures.insert().values(row | {"subjects": b"".join(erasure.subjects)}))

    def finish(self, erasure_id: str, receipt: str, at: int) -> None:
        change = erasures.update().where(erasures.c.id == erasure_id).values(receipt=receipt, done_at=at)
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(change)

    def all(self, limit: int = 100) -> list[Erasure]:
        return self._read(_NEWEST.limit(limit))

    def unfinished(self) -> list[Erasure]:
        return self._read(_NEWEST.where(erasures.c.done_at.is_(None)))

    def _read(self, query: sa.Select[Any]) -> list[Erasure]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [_erasure(row) for row in connection.execute(query)]

    def mark(self) -> str:
        at = erasures.c
        query = sa.select(sa.func.count(), sa.func.count(at.done_at), sa.func.max(at.id), sa.func.max(at.done_at))
        with catalog_errors(self._name), self._engine.connect() as connection:
            return " ".join(map(str, connection.execute(query).one()))

    def hold(self, hold: LegalHold) -> None:
        row = {column.name: getattr(hold, column.name) for column in legal_holds.columns}
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(legal_holds.delete().where(legal_holds.c.subject == hold.subject))
            connection.execute(legal_holds.insert().values(row))

    def release(self, subject: bytes) -> bool:
        with catalog_errors(self._name), self._engine.begin() as connection:
            return connection.execute(legal_holds.delete().where(legal_holds.c.subject == subject)).rowcount > 0

    def holds(self) -> list[LegalHold]:
        query = sa.select(legal_holds).order_by(legal_holds.c.held_at, legal_holds.c.subject)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                LegalHold(bytes(row.subject), row.entity, row.reason, row.held_at, row.held_by)
                for row in connection.execute(query)
            ]


def _erasure(row: Any) -> Erasure:
    stored = bytes(row.subjects)
    subjects = tuple(stored[start : start + _DIGEST] for start in range(0, len(stored), _DIGEST))
    return Erasure(row.id, row.entity, subjects, row.began_at, row.done_at, row.receipt)
