"""Batches that were pulled from a warehouse, in the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.data.warehouse.pull_store import ALL, PulledBatch
from mainspring.data.warehouse.row_digests import ROW

_pulled = sa.Table(
    "pulled_batches",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("table", sa.Text, nullable=False),
    sa.Column("arrival", sa.Text, nullable=False),
    sa.Column("instants", sa.Boolean, nullable=False),
    sa.Column("columns", sa.Text, nullable=False),  # JSON: a list of names
    sa.Column("since", sa.BigInteger),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("known_from", sa.BigInteger, nullable=False),
    sa.Column("kept", sa.BigInteger, nullable=False),  # number of digests
    sa.Column("digests", sa.LargeBinary, nullable=False),
)
_MOST = (1 << 63) - 1
_FIELDS = [_pulled.c[name] for name in PulledBatch.__dataclass_fields__]


class CatalogPulls:
    """`PullStore` in a catalog table.

    Args:
        lake: Digest of the lake whose tables are filled: profiles may share a catalog.
    """

    def __init__(self, engine: sa.Engine, lake: str) -> None:
        self._engine = engine
        self._lake = lake
        self._name = engine.url.render_as_string(hide_password=True)

    def last(self, source: str) -> PulledBatch | None:
        found = self._read(sa.select(*_FIELDS).where(*self._of(source)).order_by(_pulled.c.number.desc()).limit(1))
        return next(iter(found), None)

    def batches(self, source: str, after: int = 0) -> list[PulledBatch]:
        return self._read(
            sa.select(*_FIELDS).where(*self._of(source), _pulled.c.number > after).order_by(_pulled.c.number)
        )

    def record(self, batch: PulledBatch, digests: bytes) -> None:
        row = {
            **asdict(batch),
            "columns": msgspec.json.encode(batch.columns).decode(),
            "lake": self._lake,
            "kept": len(digests) // ROW.itemsize,
            "digests": digests,
        }
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(_pulled.insert().values(row))

    def keep(self, source: str, number: int, digests: bytes, known_from: int, rows: int | None = None) -> None:
        changed = {"digests": digests, "kept": len(digests) // ROW.itemsize, "known_from": known_from}
        changed |= {} if rows is None else {"rows": rows}
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(_pulled.update().where(*self._of(source), _pulled.c.number == number).values(changed))

    def digests(self, source: str, low: int) -> Iterator[tuple[PulledBatch, bytes]]:
        chosen = sa.select(*_FIELDS).where(*self._of(source), _pulled.c.until >= low, _pulled.c.kept > 0)
        for batch in self._read(chosen.order_by(_pulled.c.number)):  # one by one: all at once may be large
            yield batch, self.digests_of(source, batch.number)

    def digests_of(self, source: str, number: int) -> bytes:
        query = sa.select(_pulled.c.digests).where(*self._of(source), _pulled.c.number == number)
        with catalog_errors(self._name), self._engine.connect() as connection:
            found: bytes | None = connection.scalar(query)
        return found or b""

    def known_from(self, source: str, number: int) -> int:
        query = sa.select(sa.func.max(_pulled.c.known_from)).where(*self._of(source), _pulled.c.number <= number)
        with catalog_errors(self._name), self._engine.connect() as connection:
            found: int | None = connection.scalar(query)
        return ALL if found is None else found

    def deem_known(self, source: str, at: int) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            later = (*self._of(source), _pulled.c.known_from > at)
            connection.execute(_pulled.update().where(*later).values(known_from=at))

    def shed(self, source: str, before: int, most: int) -> None:
        listed = sa.select(_pulled.c.number, _pulled.c.until, _pulled.c.kept).where(
            *self._of(source), _pulled.c.kept > 0
        )
        with catalog_errors(self._name), self._engine.begin() as connection:
            left = most
            for number, until, kept in connection.execute(listed.order_by(_pulled.c.number.desc())).all():
                left -= kept
                if left < 0 and until < before:
                    gone = {"digests": b"", "kept": 0, "known_from": min(until + 1, _MOST)}
                    one = (*self._of(source), _pulled.c.number == number)
                    connection.execute(_pulled.update().where(*one).values(gone))

    def numbered(self, source: str, numbers: Collection[int]) -> dict[int, PulledBatch]:
        found = self._read(sa.select(*_FIELDS).where(*self._of(source), _pulled.c.number.in_([*numbers])))
        return {each.number: each for each in found}

    def _read(self, query: Any) -> list[PulledBatch]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            PulledBatch(**{**row._mapping, "columns": tuple(msgspec.json.decode(row.columns, type=list[str]))})
            for row in rows
        ]

    def _of(self, source: str) -> tuple[sa.ColumnElement[bool], ...]:
        return _pulled.c.lake == self._lake, _pulled.c.source == source
