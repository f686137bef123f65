"""Calls of tools that wait for a person, in the catalog."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata
from mainspring.llm.held_calls import KEPT_US, MOST_WAITING, STANDS_US, HeldCall, Status

held_calls = sa.Table(
    "held_calls",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("tool", sa.String(128), nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("caller", sa.String(256), nullable=False),
    sa.Column("asked_at", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("decided_at", sa.BigInteger),
    sa.Column("decided_by", sa.String(256), nullable=False),
)
_at = held_calls.c


class CatalogHeldCalls:
    """Held calls in the catalog."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def ask(self, call: HeldCall) -> HeldCall | None:
        theirs = (_at.model == call.model) & (_at.caller == call.caller) & (_at.asked_at > call.asked_at - STANDS_US)
        same = theirs & (_at.tool == call.tool) & (_at.digest == call.digest) & (_at.status != "used")
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, held_calls)
            connection.execute(held_calls.delete().where(_at.asked_at < call.asked_at - KEPT_US))
            known = connection.execute(sa.select(held_calls).where(same).order_by(_at.id.desc())).first()
            if known is None:
                waiting = sa.select(sa.func.count()).where(theirs, _at.status == "waiting")
                if connection.execute(waiting).scalar_one() >= MOST_WAITING:
                    return None
                connection.execute(held_calls.insert(), [msgspec.structs.asdict(call)])
                return call
            if known.status == "approved":
                connection.execute(held_calls.update().where(_at.id == known.id).values(status="used"))
            return HeldCall(**known._mapping)

    def all(self, *, since: int, waiting: bool) -> list[HeldCall]:
        query = sa.select(held_calls).where(_at.asked_at > since)
        if waiting:
            query = query.where(_at.status == "waiting")
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [HeldCall(**row._mapping) for row in connection.execute(query.order_by(_at.id))]

    def get(self, call: str) -> HeldCall | None:
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(sa.select(held_calls).where(_at.id == call)).first()
        return None if row is None else HeldCall(**row._mapping)

    def remove(self, calls: Sequence[str]) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(held_calls.delete().where(_at.id.in_(calls)))

    def decide(self, call: str, status: Status, *, by: str, at: int) -> bool:
        waits = (_at.id == call) & (_at.status == "waiting") & (_at.asked_at > at - STANDS_US)
        change = held_calls.update().where(waits).values(status=status, decided_by=by, decided_at=at)
        with catalog_errors(self._name), self._engine.begin() as connection:
            return connection.execute(change).rowcount == 1
