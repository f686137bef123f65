"""States of prediction logs in the catalog."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.ledger.moved_logs import MovedLog

moved_logs = sa.Table(
    "moved_logs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("place", sa.String(256), nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("waiting", sa.BigInteger, nullable=False),
    sa.Column("per_second", sa.Float, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
)


class CatalogMovedLogs:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def tell(self, log: MovedLog) -> None:
        values = {
            "place": log.place,
            "seen_at": log.seen_at,
            "waiting": log.waiting,
            "per_second": log.per_second,
            "ended": log.ended,
        }
        with catalog_errors(self._name), self._engine.begin() as connection:
            # One mover has a log: nobody else inserts it meanwhile.
            if not connection.execute(moved_logs.update().where(moved_logs.c.id == log.id).values(values)).rowcount:
                connection.execute(moved_logs.insert().values(id=log.id, **values))

    def forget(self, ids: Sequence[str]) -> None:
        if ids:
            with catalog_errors(self._name), self._engine.begin() as connection:
                connection.execute(moved_logs.delete().where(moved_logs.c.id.in_(ids)))

    def all(self) -> list[MovedLog]:
        query = sa.select(moved_logs).order_by(moved_logs.c.seen_at, moved_logs.c.id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                MovedLog(row.id, row.place, row.seen_at, row.waiting, row.per_second, row.ended)
                for row in connection.execute(query)
            ]
