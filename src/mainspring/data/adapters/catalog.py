"""Dataset commits and tags in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id
from mainspring.data.model import DatasetCommit

_commits = sa.Table(
    "dataset_commits",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("parent", sa.String(64)),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),  # JSON: table -> version
    sa.Column("at", sa.BigInteger, nullable=False),  # UTC epoch microseconds
)
_tags = sa.Table(
    "dataset_tags",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("commit_id", sa.String(64), sa.ForeignKey("dataset_commits.id"), nullable=False),
)


class CatalogSnapshots:
    """`Snapshots` in two catalog tables."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, commit: DatasetCommit) -> None:
        row = {
            "id": commit.id,
            "parent": commit.parent,
            "message": commit.message,
            "versions": msgspec.json.encode(dict(commit.versions)).decode(),
            "at": commit.at,
        }
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(_commits.insert().values(row))
            except sa.exc.IntegrityError:
                self.get(commit.id)  # it exists already

    def get(self, name: str) -> DatasetCommit:
        tagged = sa.select(_tags.c.commit_id).where(_tags.c.name == name)
        query = (
            sa.select(_commits)
            .where(sa.or_(_commits.c.id == name, _commits.c.id.in_(tagged)))
            .order_by((_commits.c.id == name).desc())
        )
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(f"No dataset commit or tag is named {name!r}.", fix=f"the tags are {sorted(self.tags())}.")
        return _read(row)

    def log(self, limit: int = 100) -> list[DatasetCommit]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(sa.select(_commits).order_by(_commits.c.number.desc()).limit(limit)).all()
        return [_read(row) for row in rows]

    def tag(self, name: str, commit: str) -> None:
        check_id(name, "tag")
        with catalog_errors(self._name), self._engine.begin() as connection:
            if connection.execute(sa.select(_commits.c.id).where(_commits.c.id == commit)).first() is None:
                raise NotFound(f"There is no dataset commit {commit!r}.")
            moved = upsert(self._engine, _tags, ("name",), ("commit_id",))
            connection.execute(moved, {"name": name, "commit_id": commit})

    def untag(self, name: str) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(_tags.delete().where(_tags.c.name == name))

    def tags(self) -> Mapping[str, str]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return {row.name: row.commit_id for row in connection.execute(sa.select(_tags).order_by(_tags.c.name))}


def _read(row: sa.Row[Any]) -> DatasetCommit:
    return DatasetCommit(
        row.id, msgspec.json.decode(row.versions, type=dict[str, int]), row.parent, row.message, row.at
    )
