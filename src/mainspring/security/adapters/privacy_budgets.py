"""Spent privacy budgets, in the catalog, and in a file beside: a catalog that was restored from before a release has
the budget again, and the file says that it is spent.
"""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from mainspring.core.catalog import after_commit, catalog_errors, metadata
from mainspring.core.files import disk_errors, make_folder, sync_folder

budgets = sa.Table(
    "privacy_budgets",
    metadata,
    sa.Column("source", sa.String(128), primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False),  # millionths of epsilon
)
_NEW = sa.text("INSERT INTO privacy_budgets (source, spent) VALUES (:source, 0) ON CONFLICT DO NOTHING")


class CatalogPrivacyBudgets:
    """Budgets over the catalog.

    Args:
        kept: File of what was spent, a line `SPENT SOURCE` of each time. Never restore an older one over it.
    """

    def __init__(self, engine: sa.Engine, kept: Path) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)
        self._file = kept

    def spend(self, source: str, millionths: int, budget: int) -> bool:
        of, floor = budgets.c.source == source, self._kept(source)
        enough = sa.and_(of, budgets.c.spent + millionths <= budget)
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(_NEW, {"source": source})
            connection.execute(budgets.update().where(of, budgets.c.spent < floor).values(spent=floor))
            change = budgets.update().where(enough).values(spent=budgets.c.spent + millionths)
            if connection.execute(change).rowcount != 1:
                return False
            spent = int(connection.execute(sa.select(budgets.c.spent).where(of)).scalar_one())
        after_commit(self._engine, lambda: self._keep(source, spent))
        return True

    def spent(self, source: str) -> int:
        query = sa.select(budgets.c.spent).where(budgets.c.source == source)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return max(int(connection.execute(query).scalar() or 0), self._kept(source))

    def _kept(self, source: str) -> int:
        try:
            lines = self._file.read_text(encoding="utf-8").split("\n")  # of a torn one the next begins a new line
        except FileNotFoundError:
            return 0
        spent = [each.removesuffix(f" {source}") for each in lines if each.endswith(f" {source}")]
        return max((int(each) for each in spent if each.isdecimal()), default=0)

    def _keep(self, source: str, spent: int) -> None:
        make_folder(self._file.parent)
        with disk_errors(self._file):
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(f"\n{spent} {source}\n".encode())
                file.flush()
                os.fsync(descriptor)
        sync_folder(self._file.parent)
