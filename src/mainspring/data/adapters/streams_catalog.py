"""Batches, members and leases of streams in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata, upsert
from mainspring.data.streams.store import Batch, Lease, Member

_batches = sa.Table(
    "stream_batches",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("stream", sa.String(128), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("spans", sa.Text, nullable=False),  # JSON: partition -> [from, to]; offsets are text, for their size
)
_members = sa.Table(
    "stream_members",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("stream", sa.String(128), primary_key=True),
    sa.Column("owner", sa.String(128), primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
_leases = sa.Table(
    "stream_leases",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("stream", sa.String(128), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
_FORGOTTEN_US = 3_600_000_000  # a member that died is shown for an hour


class CatalogStreams:
    """`StreamStore` in three catalog tables.

    Args:
        lake: Digest of the lake whose tables the streams fill: profiles may share a catalog.
        ended: Whether the process that is an owner is known to have ended.
    """

    def __init__(self, engine: sa.Engine, lake: str, ended: Callable[[str], bool] = lambda _: False) -> None:
        self._engine = engine
        self._lake = lake
        self._ended = ended
        self._name = engine.url.render_as_string(hide_password=True)

    def batch(self, stream: str) -> Batch | None:
        query = sa.select(_batches).where(*self._of(_batches, stream))
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        spans = msgspec.json.decode(row.spans, type=dict[int, tuple[str | None, str]])
        ints = {each: (None if since is None else int(since), int(end)) for each, (since, end) in spans.items()}
        return Batch(stream, row.topic, row.number, ints)

    def record(self, batch: Batch) -> None:
        spans = {each: (None if since is None else str(since), str(end)) for each, (since, end) in batch.spans.items()}
        row = {
            "lake": self._lake,
            "stream": batch.stream,
            "topic": batch.topic,
            "number": batch.number,
            "spans": msgspec.json.encode(spans).decode(),
        }
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(upsert(self._engine, _batches, ("lake", "stream"), ("topic", "number", "spans")), row)

    def claim(self, stream: str, owner: str, partitions: Collection[int], now: int, until: int) -> dict[int, int]:
        same = {"lake": self._lake, "stream": stream}
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, _members)
            alive = upsert(self._engine, _members, ("lake", "stream", "owner"), ("until",))
            connection.execute(alive, {**same, "owner": owner, "until": until, "document": b""})
            connection.execute(
                _members.delete().where(*self._of(_members, stream), _members.c.until < now - _FORGOTTEN_US)
            )
            owners = connection.scalars(
                sa.select(_members.c.owner).where(*self._of(_members, stream), _members.c.until > now)
            ).all()
            ended = {each for each in owners if each != owner and self._ended(each)}
            live = sorted({*owners} - ended)
            share = len(partitions) // len(live) + (live.index(owner) < len(partitions) % len(live))
            rows = connection.execute(sa.select(_leases).where(*self._of(_leases, stream))).all()
            there = {row.partition: Lease(row.partition, row.owner, row.epoch, row.until) for row in rows}
            held, free = [], []
            for partition in sorted(partitions):
                lease = there.get(partition)
                if lease is not None and lease.owner == owner and lease.until > now:
                    held.append(lease)
                elif lease is None or lease.until <= now or lease.owner in ended:
                    free.append(Lease(partition, owner, 1 + (lease.epoch if lease else 0), until))
            kept = [*held[:share], *free[: max(0, share - len(held))]]
            changed = [
                {**same, "partition": each.partition, "owner": owner, "epoch": each.epoch, "until": end}
                for leases, end in ((kept, until), (held[share:], 0))
                for each in leases
            ]
            if changed:
                key = ("lake", "stream", "partition")
                connection.execute(upsert(self._engine, _leases, key, ("owner", "epoch", "until")), changed)
        return {lease.partition: lease.epoch for lease in kept}

    def holds(self, stream: str, owner: str, epochs: Mapping[int, int], now: int) -> bool:
        held = {
            lease.partition: lease.epoch
            for lease in self.leases(stream)
            if lease.owner == owner and lease.until > now and lease.partition in epochs
        }
        return held == dict(epochs)

    def release(self, stream: str, owner: str) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            # Members first, as in `claim`: otherwise the two wait for each other.
            connection.execute(_members.delete().where(*self._of(_members, stream), _members.c.owner == owner))
            mine = (*self._of(_leases, stream), _leases.c.owner == owner)
            connection.execute(_leases.update().where(*mine).values(until=0))

    def report(self, stream: str, owner: str, document: bytes) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            mine = (*self._of(_members, stream), _members.c.owner == owner)
            connection.execute(_members.update().where(*mine).values(document=document))

    def members(self, stream: str) -> list[Member]:
        query = sa.select(_members).where(*self._of(_members, stream)).order_by(_members.c.owner)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [Member(stream, row.owner, row.until, row.document) for row in connection.execute(query)]

    def leases(self, stream: str) -> list[Lease]:
        query = sa.select(_leases).where(*self._of(_leases, stream)).order_by(_leases.c.partition)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [Lease(row.partition, row.owner, row.epoch, row.until) for row in connection.execute(query)]

    def _of(self, table: sa.Table, stream: str) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.lake == self._lake, table.c.stream == stream
