"""Builds of collections in the catalog, one JSON document per row."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.vectors.model import Build

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


class CatalogBuilds:
    """Builds of the collections of one lake; profiles with different lakes may share a catalog.

    Args:
        lake: Identifier of the lake.
    """

    def __init__(self, engine: sa.Engine, lake: str) -> None:
        self._engine = engine
        self._lake = lake
        self._name = str(engine.url.database)

    def get(self, collection: str) -> Build | None:
        return next(iter(self._read(collections.c.name == collection)), None)

    def save(self, build: Build) -> None:
        row = {"lake": self._lake, "name": build.collection, "document": msgspec.json.encode(build)}
        statement = upsert(self._engine, collections, ("lake", "name"), ("document",))
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(statement, [row])

    def remove(self, collection: str) -> None:
        theirs = (collections.c.lake == self._lake) & (collections.c.name == collection)
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(collections.delete().where(theirs))

    def all(self) -> list[Build]:
        return self._read(sa.true())

    def _read(self, condition: sa.ColumnElement[bool]) -> list[Build]:
        query = sa.select(collections.c.document).where(collections.c.lake == self._lake, condition)
        with catalog_errors(self._name), self._engine.connect() as connection:
            documents = connection.execute(query.order_by(collections.c.name)).scalars().all()
        return [msgspec.json.decode(document, type=Build) for document in documents]
