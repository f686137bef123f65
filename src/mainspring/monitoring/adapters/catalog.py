"""Windows in the catalog, one JSON document per row, and their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.monitoring.model import Checkpoint, Window

monitor_windows = sa.Table(
    "monitor_windows",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("end", sa.BigInteger, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)

monitor_checkpoints = sa.Table(
    "monitor_checkpoints",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("window_us", sa.BigInteger, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


class CatalogMonitors:
    """Windows and checkpoints of the predictions in one lake; profiles with different lakes may share a catalog.

    Rows without a lake were written by earlier releases. The first lake that saves takes them over.

    Args:
        lake: Identifier of the lake; empty for the rows without one.
    """

    def __init__(self, engine: sa.Engine, lake: str = "") -> None:
        self._engine = engine
        self._lake = lake
        self._name = str(engine.url.database)

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        rows: list[dict[str, Any]] = [
            {
                "lake": self._lake,
                "endpoint": window.endpoint,
                "start": window.start,
                "end": window.end,
                "document": msgspec.json.encode(window),
            }
            for window in windows
        ]
        if not rows and checkpoint is None:
            return
        # In a fixed order, so that two writers of the same rows cannot deadlock.
        rows.sort(key=lambda row: (row["endpoint"], row["start"], row["end"]))
        statement = upsert(self._engine, monitor_windows, ("lake", "endpoint", "start", "end"), ("document",))
        with catalog_errors(self._name), self._engine.begin() as connection:
            self._claim(connection)
            if rows:
                connection.execute(statement, rows)
            if checkpoint is not None:
                key = {"lake": self._lake, "endpoint": checkpoint.endpoint, "window_us": checkpoint.window_us}
                last = upsert(self._engine, monitor_checkpoints, tuple(key), ("document",))
                connection.execute(last, [{**key, "document": msgspec.msgpack.encode(checkpoint)}])

    def _claim(self, connection: sa.Connection) -> None:
        if self._lake:
            for table in (monitor_windows, monitor_checkpoints):
                connection.execute(table.update().where(table.c.lake == "").values(lake=self._lake))

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        table = monitor_checkpoints.c
        query = sa.select(table.document).where(
            table.lake.in_(("", self._lake)), table.endpoint == endpoint, table.window_us == window_us
        )
        with catalog_errors(self._name), self._engine.connect() as connection:
            document = connection.execute(query).scalar()
        try:
            return None if document is None else msgspec.msgpack.decode(document, type=Checkpoint)
        except msgspec.MsgspecError:  # damaged, or from another release: everything is counted again
            return None

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        table = monitor_windows.c
        query = (
            sa.select(table.document)
            .where(table.lake.in_(("", self._lake)), table.endpoint == endpoint, table.start >= since)
            .order_by(table.start, table.end)
        )
        if until is not None:
            query = query.where(table.start < until)
        with catalog_errors(self._name), self._engine.connect() as connection:
            documents = connection.execute(query).scalars().all()
        decode = msgspec.json.Decoder(Window).decode
        return [decode(document) for document in documents]
