"""Wrapped data keys, and keys of subjects, in the catalog."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.security.model import StoredKey, StoredSubject, Wrapped

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

subject_keys = sa.Table(
    "subject_keys",
    metadata,
    sa.Column("subject", sa.LargeBinary(32), primary_key=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),  # empty once destroyed
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("destroyed_at", sa.BigInteger),
)
_AT_ONCE = 1_000  # values in a statement


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


class CatalogSubjectKeys:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, keys: Sequence[StoredSubject]) -> None:
        rows = [
            {
                "subject": key.subject,
                "id": key.id,
                "wrapped": key.wrapped,
                "created_at": key.created_at,
                "destroyed_at": key.destroyed_at,
            }
            for key in sorted(keys, key=lambda key: key.subject)  # in one order: two that add the same do not deadlock
        ]
        if rows:
            insert = _insert(self._engine).on_conflict_do_nothing(index_elements=["subject"])
            with catalog_errors(self._name), self._engine.begin() as connection:
                connection.execute(insert, rows)

    def find(self, subjects: Sequence[bytes]) -> list[StoredSubject | None]:
        found = {bytes(row.subject): _subject(row) for row in self._rows(subject_keys.c.subject, subjects)}
        return [found.get(each) for each in subjects]

    def subjects(self, ids: Sequence[str]) -> list[bytes | None]:
        found = {row.id: bytes(row.subject) for row in self._rows(subject_keys.c.id, ids)}
        return [found.get(each) for each in ids]

    def destroy(self, subjects: Sequence[bytes], at: int) -> None:
        rows = [
            {"subject": each, "id": os.urandom(16).hex(), "wrapped": b"", "created_at": at, "destroyed_at": at}
            for each in sorted(set(subjects))
        ]
        if rows:
            columns = subject_keys.c
            insert = _insert(self._engine).on_conflict_do_update(
                index_elements=["subject"],
                set_={"wrapped": b"", "destroyed_at": sa.func.coalesce(columns.destroyed_at, at)},
            )
            with catalog_errors(self._name), self._engine.begin() as connection:
                connection.execute(insert, rows)

    def destroyed(self) -> list[bytes]:
        query = sa.select(subject_keys.c.subject).where(subject_keys.c.destroyed_at.is_not(None))
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [bytes(each) for each in connection.execute(query).scalars()]

    def _rows(self, column: sa.Column[Any], values: Sequence[Any]) -> Iterator[Any]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            for start in range(0, len(values), _AT_ONCE):
                query = sa.select(subject_keys).where(column.in_(values[start : start + _AT_ONCE]))
                yield from connection.execute(query).all()


def _insert(engine: sa.Engine) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if engine.dialect.name == "postgresql" else sqlite).insert(subject_keys)


def _subject(row: Any) -> StoredSubject:
    return StoredSubject(row.id, bytes(row.subject), bytes(row.wrapped), row.created_at, row.destroyed_at)
