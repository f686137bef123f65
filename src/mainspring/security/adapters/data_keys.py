"""Wrapped data keys in the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.security.model import StoredKey, Wrapped

data_keys = sa.Table(
    "data_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("purpose", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("purpose", "number", name="data_keys_by_purpose"),
)


class CatalogDataKeys:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, key: StoredKey) -> StoredKey:
        columns = data_keys.c
        row = {
            "id": key.id,
            "purpose": key.purpose,
            "number": key.number,
            "wrapped": key.wrapped.content,
            "version": key.wrapped.version,
            "created_at": key.created_at,
        }
        query = sa.select(data_keys).where(columns.purpose == key.purpose, columns.number == key.number)
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(data_keys.insert().values(row))
            except sa.exc.IntegrityError:
                with self._engine.connect() as connection:
                    return _data_key(connection.execute(query).one())
        return key

    def newest(self, purpose: str) -> StoredKey | None:
        columns = data_keys.c
        query = sa.select(data_keys).where(columns.purpose == purpose).order_by(columns.number.desc()).limit(1)
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _data_key(row)

    def find(self, ids: Sequence[str]) -> list[StoredKey | None]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(sa.select(data_keys).where(data_keys.c.id.in_(ids)))
            found = {row.id: _data_key(row) for row in rows}
        return [found.get(each) for each in ids]

    def all(self) -> list[StoredKey]:
        query = sa.select(data_keys).order_by(data_keys.c.purpose, data_keys.c.number)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [_data_key(row) for row in connection.execute(query)]

    def rewrap(self, keys: Sequence[StoredKey], wrapped: Sequence[Wrapped]) -> int:
        columns, changed = data_keys.c, 0
        with catalog_errors(self._name), self._engine.begin() as connection:
            for key, new in zip(keys, wrapped, strict=True):
                as_read = (columns.id == key.id, columns.wrapped == key.wrapped.content)
                values = {"wrapped": new.content, "version": new.version}
                changed += connection.execute(data_keys.update().where(*as_read).values(values)).rowcount
        return changed


def _data_key(row: Any) -> StoredKey:
    return StoredKey(row.id, row.purpose, row.number, Wrapped(bytes(row.wrapped), row.version), row.created_at)
