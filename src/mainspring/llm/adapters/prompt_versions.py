"""Versions of prompts in the catalog: a row each, which never changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata
from mainspring.llm.prompts import PromptAlias, PromptVersion, digest_of

prompt_versions = sa.Table(
    "prompt_versions",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)


prompt_moves = sa.Table(
    "prompt_moves",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("alias", sa.String(128), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("canary", sa.Integer),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("moved_at", sa.BigInteger, nullable=False),
    sa.Column("moved_by", sa.String(256), nullable=False),
)


class CatalogPromptVersions:
    """Versions of prompts in the catalog, and moves of their aliases."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def record(self, documents: Mapping[str, Mapping[str, Any]], at: int) -> list[PromptVersion]:
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, prompt_versions)
            newest = self._read(connection, _newest())
            known = {each.name: each for each in newest}
            made = []
            for name, document in sorted(documents.items()):
                before, digest = known.get(name), digest_of(document)
                if before is None or before.digest != digest:
                    version = 1 if before is None else before.version + 1
                    made.append((name, version, digest, json.dumps(document, ensure_ascii=False), at))
            if made:
                rows = [dict(zip(prompt_versions.columns.keys(), each, strict=True)) for each in made]
                connection.execute(prompt_versions.insert(), rows)
        return [_version(*each) for each in made]

    def newest(self) -> list[PromptVersion]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return self._read(connection, _newest())

    def all(self, name: str) -> list[PromptVersion]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return self._read(connection, prompt_versions.c.name == name)[::-1]

    def move(self, alias: PromptAlias) -> None:
        table = prompt_moves
        last = sa.select(sa.func.max(table.c.number)).where(table.c.name == alias.name, table.c.alias == alias.alias)
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, table)
            number = (connection.execute(last).scalar() or 0) + 1
            connection.execute(table.insert(), [{**msgspec.structs.asdict(alias), "number": number}])

    def aliases(self, name: str) -> list[PromptAlias]:
        table = prompt_moves
        query = sa.select(table).where(table.c.name == name).order_by(table.c.alias, table.c.number)
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        newest = {
            row.alias: PromptAlias(
                name=row.name,
                alias=row.alias,
                version=row.version,
                canary=row.canary,
                share=row.share,
                moved_at=row.moved_at,
                moved_by=row.moved_by,
            )
            for row in rows
        }
        return list(newest.values())

    def _read(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[PromptVersion]:
        table = prompt_versions
        query = sa.select(table).where(which).order_by(table.c.name, table.c.version)
        return [
            _version(row.name, row.version, row.digest, row.content, row.applied_at)
            for row in connection.execute(query)
        ]


def _newest() -> sa.ColumnElement[bool]:
    other = prompt_versions.alias()
    largest = sa.select(sa.func.max(other.c.version)).where(other.c.name == prompt_versions.c.name)
    return prompt_versions.c.version == largest.scalar_subquery()


def _version(name: str, version: int, digest: str, content: str, applied_at: int) -> PromptVersion:
    facts = {"name": name, "version": version, "digest": digest, "applied_at": applied_at}
    return msgspec.convert({**json.loads(content), **facts}, PromptVersion)
