"""The routing table in the catalog: one row an endpoint, and one row that counts the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.serving.model import Route
from mainspring.serving.table import normalised, stamped

routes_table = sa.Table(
    "routes",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("route", sa.Text, nullable=False),
)
revision_table = sa.Table(
    "routes_revision",
    metadata,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
_THE_ROW = 1


class CatalogRoutes:
    """`Routes`, shared by every process of a project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def publish(self, routes: Sequence[Route]) -> int:
        table = normalised(routes)
        with catalog_errors(self._name):
            self._ensure_revision()
            with self._engine.begin() as connection:
                # The write first: it takes the lock, so nobody publishes between our reading and our writing.
                connection.execute(sa.update(revision_table).values(revision=revision_table.c.revision))
                revision = _revision(connection)
                if revision and _read(connection) == table:
                    return revision
                connection.execute(sa.delete(routes_table))
                if table:
                    rows = [
                        {"endpoint": name, "route": msgspec.json.encode(route).decode()}
                        for name, route in table.items()
                    ]
                    connection.execute(sa.insert(routes_table), rows)
                connection.execute(sa.update(revision_table).values(revision=revision + 1))
                return revision + 1

    def revision(self) -> int:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return _revision(connection)

    def current(self) -> Mapping[str, Route]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            # Both in one snapshot: a SELECT alone opens none on every driver, so the revision is read on both sides.
            while True:
                revision = _revision(connection)
                table = _read(connection)
                if _revision(connection) == revision:
                    return stamped(table, revision)

    def _ensure_revision(self) -> None:
        with self._engine.connect() as connection:
            if connection.execute(sa.select(revision_table.c.revision)).first() is not None:
                return
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(revision_table).values(only=_THE_ROW, revision=0))
        except sa.exc.IntegrityError:  # another process was first
            pass


def _revision(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(revision_table.c.revision)).scalar() or 0)


def _read(connection: sa.Connection) -> dict[str, Route]:
    rows = connection.execute(sa.select(routes_table).order_by(routes_table.c.endpoint))
    return {row.endpoint: msgspec.json.decode(row.route, type=Route) for row in rows}
