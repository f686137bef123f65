"""Spent privacy budgets, in the catalog."""

from __future__ import annotations

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata

budgets = sa.Table(
    "privacy_budgets",
    metadata,
    sa.Column("source", sa.String(128), primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False),  # millionths of epsilon
)
_NEW = sa.text("INSERT INTO privacy_budgets (source, spent) VALUES (:source, 0) ON CONFLICT DO NOTHING")


class CatalogPrivacyBudgets:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def spend(self, source: str, millionths: int, budget: int) -> bool:
        enough = sa.and_(budgets.c.source == source, budgets.c.spent + millionths <= budget)
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(_NEW, {"source": source})
            change = budgets.update().where(enough).values(spent=budgets.c.spent + millionths)
            return connection.execute(change).rowcount == 1

    def spent(self, source: str) -> int:
        query = sa.select(budgets.c.spent).where(budgets.c.source == source)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)
