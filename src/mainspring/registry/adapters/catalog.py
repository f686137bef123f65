"""Alias moves in the catalog: the newest move of an alias decides which version it names.

The catalog is the source of truth for aliases; a tracking store's own aliases mirror it. A crash between the two stores
can leave the mirror behind, never the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.registry.adapters.catalog_decisions import CatalogApprovals, CatalogDeletions, CatalogTrustedKeys
from mainspring.registry.model import AliasMove, alias_conflict

__all__ = ["AliasMoves", "CatalogApprovals", "CatalogDeletions", "CatalogTrustedKeys", "alias_moves"]

alias_moves = sa.Table(
    "alias_moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("alias", sa.String(128), nullable=False),
    sa.Column("old", sa.String(32)),
    sa.Column("new", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("domain_at", sa.BigInteger),
    sa.Index("alias_moves_by_alias", "model", "alias", "id"),
)


class AliasMoves:
    """The `alias_moves` table: reads and appends."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def exclusively(self) -> Iterator[sa.Connection]:
        """Open a transaction that excludes every other writer of the table; roll back on an exception."""
        with catalog_errors(str(self._engine.url.database)), self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.text("LOCK TABLE alias_moves IN EXCLUSIVE MODE"))
            yield connection
            connection.commit()

    def append(self, move: AliasMove, connection: sa.Connection) -> None:
        """Add a move if the alias still names `move.old`.

        Raises:
            Conflict: The alias names another version.
        """
        newest = (
            sa.select(alias_moves.c.new)
            .where(alias_moves.c.model == move.model, alias_moves.c.alias == move.alias)
            .order_by(alias_moves.c.id.desc())
            .limit(1)
        )
        present = connection.execute(newest).scalar_one_or_none()
        if present != move.old:
            raise alias_conflict(move, present)
        connection.execute(
            alias_moves.insert().values(
                model=move.model,
                alias=move.alias,
                old=move.old,
                new=move.new,
                actor=move.actor,
                reason=move.reason,
                at=move.at,
                domain_at=move.domain_at,
            )
        )

    def current(self, model: str | None = None, within: sa.Connection | None = None) -> dict[tuple[str, str], str]:
        """Return a mapping of (model, alias) to the version it names, as a transaction sees it if one is given."""
        last = sa.select(sa.func.max(alias_moves.c.id)).group_by(alias_moves.c.model, alias_moves.c.alias)
        if model is not None:
            last = last.where(alias_moves.c.model == model)
        query = sa.select(alias_moves.c.model, alias_moves.c.alias, alias_moves.c.new).where(alias_moves.c.id.in_(last))
        with (
            catalog_errors(str(self._engine.url.database)),
            self._engine.connect() if within is None else nullcontext(within) as connection,
        ):
            return {(row.model, row.alias): row.new for row in connection.execute(query)}

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """Return the moves of a model, or of one of its aliases, newest first."""
        query = sa.select(alias_moves).where(alias_moves.c.model == model).order_by(alias_moves.c.id.desc())
        if alias is not None:
            query = query.where(alias_moves.c.alias == alias)
        with catalog_errors(str(self._engine.url.database)), self._engine.connect() as connection:
            return [
                AliasMove(row.model, row.alias, row.old, row.new, row.actor, row.reason, row.at, row.domain_at)
                for row in connection.execute(query)
            ]
