"""Windows in the catalog, one JSON document a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.monitoring.model import Window

monitor_windows = sa.Table(
    "monitor_windows",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("end", sa.BigInteger, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


class CatalogMonitors:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def save(self, windows: Sequence[Window]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "endpoint": window.endpoint,
                "start": window.start,
                "end": window.end,
                "document": msgspec.json.encode(window),
            }
            for window in windows
        ]
        if not rows:
            return
        # In one order, whoever writes: two that took the same rows crosswise would wait for each other.
        rows.sort(key=lambda row: (row["endpoint"], row["start"], row["end"]))
        statement = upsert(self._engine, monitor_windows, ("endpoint", "start", "end"), ("document",))
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(statement, rows)

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        table = monitor_windows.c
        query = (
            sa.select(table.document)
            .where(table.endpoint == endpoint, table.start >= since)
            .order_by(table.start, table.end)
        )
        if until is not None:
            query = query.where(table.start < until)
        with catalog_errors(self._name), self._engine.connect() as connection:
            documents = connection.execute(query).scalars().all()
        decode = msgspec.json.Decoder(Window).decode
        return [decode(document) for document in documents]
