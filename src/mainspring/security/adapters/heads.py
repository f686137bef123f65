"""Heads of other installations' audit logs, and how far this installation's own log is anchored, in the catalog."""

from __future__ import annotations

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict
from mainspring.security.model import AnchorState, ReceivedHead

received_heads = sa.Table(
    "received_heads",
    metadata,
    sa.Column("public", sa.LargeBinary(32), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("received_by", sa.Text, nullable=False),
    sa.Column("refused", sa.Text, nullable=False),
)
anchor_states = sa.Table(
    "anchor_states",
    metadata,
    sa.Column("place", sa.String(512), primary_key=True),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
)


class CatalogReceivedHeads:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, head: ReceivedHead) -> None:
        row = {column.name: getattr(head, column.name) for column in received_heads.columns}
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(received_heads.insert().values(row))
            except sa.exc.IntegrityError as error:
                raise Conflict("Another head came at the same time.", fix="send it again.") from error

    def of(
        self, public: bytes, *, taken: bool = False, before: int | None = None, limit: int = 1
    ) -> list[ReceivedHead]:
        query = sa.select(received_heads).where(received_heads.c.public == public)
        if taken:
            query = query.where(received_heads.c.refused == "")
        if before is not None:
            query = query.where(received_heads.c.number < before)
        return self._found(query.order_by(received_heads.c.number.desc()).limit(limit))

    def refused(self, since: int) -> list[ReceivedHead]:
        query = sa.select(received_heads).where(received_heads.c.refused != "", received_heads.c.received_at >= since)
        return self._found(query.order_by(received_heads.c.received_at))

    def _found(self, query: sa.Select[tuple[object, ...]]) -> list[ReceivedHead]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [ReceivedHead(**row) for row in connection.execute(query).mappings()]


class CatalogAnchorStates:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def save(self, state: AnchorState) -> None:
        row = {column.name: getattr(state, column.name) for column in anchor_states.columns}
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(anchor_states.delete().where(anchor_states.c.place == state.place))
            connection.execute(anchor_states.insert().values(row))

    def all(self) -> dict[str, AnchorState]:
        query = sa.select(anchor_states)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return {row["place"]: AnchorState(**row) for row in connection.execute(query).mappings()}
