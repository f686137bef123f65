"""Records of deployed pieces in the catalog."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.deploy.targets.model import Made

deployed_pieces = sa.Table(
    "deployed_pieces",
    metadata,
    sa.Column("target", sa.String(64), primary_key=True),
    sa.Column("piece", sa.String(512), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)


class CatalogRecords:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def targets(self) -> list[str]:
        query = sa.select(deployed_pieces.c.target).distinct().order_by(deployed_pieces.c.target)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return list(connection.scalars(query))

    def made(self, target: str) -> list[Made]:
        table = deployed_pieces
        query = sa.select(table).where(table.c.target == target).order_by(table.c.position, table.c.piece)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                Made(piece=row.piece, position=row.position, digest=row.digest, done=row.done, at=row.at)
                for row in connection.execute(query)
            ]

    def keep(self, target: str, records: Sequence[Made]) -> None:
        if not records:
            return
        rows = [
            {
                "target": target,
                "piece": each.piece,
                "position": each.position,
                "digest": each.digest,
                "done": each.done,
                "at": each.at,
            }
            for each in records
        ]
        with catalog_errors(self._name), self._engine.begin() as connection:
            _delete(connection, target, [each.piece for each in records])
            connection.execute(deployed_pieces.insert(), rows)

    def forget(self, target: str, pieces: Sequence[str]) -> None:
        if pieces:
            with catalog_errors(self._name), self._engine.begin() as connection:
                _delete(connection, target, pieces)


def _delete(connection: sa.Connection, target: str, pieces: Sequence[str]) -> None:
    table = deployed_pieces
    for start in range(0, len(pieces), 500):
        some = pieces[start : start + 500]
        connection.execute(table.delete().where(table.c.target == target, table.c.piece.in_(some)))
