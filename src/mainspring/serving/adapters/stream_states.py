"""States of stream endpoints in the catalog, so that a partition's moves with it to another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.core.errors import NotFound
from mainspring.serving.streaming.progress import (
    BatchRecord,
    Progress,
    decode_progress,
    decode_record,
    decode_starts,
    encode_progress,
    encode_record,
    encode_starts,
)
from mainspring.serving.streaming.state import Commit, Erased, Erasure, Waiting, died, fresh_numbers, lost


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        f"stream_endpoint_{name}",
        metadata,
        sa.Column("lake", sa.String(64), primary_key=True),
        sa.Column("endpoint", sa.String(128), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        *columns,
    )


_heads = _table(
    "partitions",
    sa.Column("epoch", sa.BigInteger, nullable=False),  # of the lease under which it is written
    sa.Column("progress", sa.LargeBinary),
    sa.Column("running", sa.LargeBinary),  # as `PartitionState.attempt` notes it
)
_states = _table(
    "states",
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
sa.Index("stream_endpoint_states_by_last", *(_states.c[name] for name in ("lake", "endpoint", "partition", "last")))
_outbox = _table(
    "outbox",
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Integer, nullable=False),
    sa.Column("sinks", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_sinks = _table(
    "sinks",
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
)
_batches = _table(
    "batches",
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("accepted_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_PLACE = ("lake", "endpoint", "partition")
_STARTS = -1  # the row of `partitions` that has `StateStore.starts` as its progress
_ERASURES = -2  # less a partition's number: the row that counts its erasures
_EXPIRED_AT_ONCE = 1000
_FORGOTTEN_AT_ONCE = 4
_PAGE = 64  # records that are read at once
_KEYS = 500


class CatalogStates:
    """`StateStore` in five catalog tables.

    Args:
        lake: As of `CatalogStreams`.
    """

    def __init__(self, engine: sa.Engine, lake: str, endpoint: str) -> None:
        self._engine = engine
        self._lake = lake
        self._endpoint = endpoint
        self._name = engine.url.render_as_string(hide_password=True)

    @property
    def place(self) -> str:
        return f"the catalog's tables stream_endpoint_*, of endpoint {self._endpoint!r}"

    def partitions(self) -> list[int]:
        ours = (_heads.c.lake == self._lake, _heads.c.endpoint == self._endpoint)
        query = sa.select(_heads.c.partition).where(*ours, _heads.c.partition >= 0)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return sorted(connection.scalars(query))

    def starts(self, find: Callable[[], Mapping[int, int]]) -> dict[int, int]:
        place = dict(zip(_PLACE, (self._lake, self._endpoint, _STARTS), strict=True))
        query = sa.select(_heads.c.progress).where(*(_heads.c[name] == value for name, value in place.items()))
        with catalog_errors(self._name), self._engine.connect() as connection:
            known = connection.scalar(query)
        if known is None:
            new = {**place, "epoch": 0, "progress": encode_starts(find())}
            with catalog_errors(self._name), self._engine.begin() as connection:
                connection.execute(upsert(self._engine, _heads, _PLACE, ("lake",)), new)
                known = connection.scalar(query)
        return decode_starts(known or b"")

    def open(
        self,
        partition: int,
        epoch: int | None = None,
        *,
        durable: bool = True,  # noqa: ARG002  (the server's commits are)
    ) -> CatalogState:
        state = CatalogState(self._engine, (self._lake, self._endpoint, partition), epoch)
        if epoch is not None:
            state.take()
        return state


class CatalogState:
    """`PartitionState` in rows. A write checks the epoch in its transaction, and keeps others of the partition out.

    Records are forgotten by their age alone.
    """

    def __init__(self, engine: sa.Engine, place: tuple[str, str, int], epoch: int | None) -> None:
        self._engine = engine
        self._epoch = epoch
        self._place = place
        self._where = dict(zip(_PLACE, place, strict=True))
        self._name = engine.url.render_as_string(hide_password=True)
        self._snapshot: sa.Connection | None = None

    def take(self) -> None:
        """Keep every process with a smaller epoch from writing."""
        with catalog_errors(self._name), self._engine.begin() as connection:
            new = {**self._where, "epoch": self._epoch}
            connection.execute(upsert(self._engine, _heads, _PLACE, ("lake",)), new)  # the row is there, and locked
            found = connection.scalar(self._rows(_heads, "epoch"))
            if found > (self._epoch or 0):
                raise self._lost()
            connection.execute(self._update(_heads).values(epoch=self._epoch))

    def close(self) -> None:
        """Keep nothing: connections are the engine's."""

    # Progress

    def progress(self) -> Progress | None:
        with self._reading() as connection:
            return self._progress(connection)

    def begin(self, progress: Progress) -> None:
        with self._writing() as connection:
            connection.execute(self._update(_heads).values(progress=encode_progress(progress)))

    def states(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._reading() as connection:
            for start in range(0, len(keys), _KEYS):
                query = self._rows(_states, "key", "value")
                rows = connection.execute(query.where(_states.c.key.in_(keys[start : start + _KEYS])))
                found.update((row.key, row.value) for row in rows)
        return found

    def all_states(self) -> dict[bytes, bytes]:
        with self._reading() as connection:
            return {row.key: row.value for row in connection.execute(self._rows(_states, "key", "value"))}

    def commit(self, made: Commit) -> None:
        with self._writing() as connection:
            if made.erasures not in (None, self._erasures(connection)):
                raise Erased(self._name)
            if made.expired is not None:
                self._expire(connection, made, made.expired)
            states = [{**self._where, "key": key, "last": at, "value": of} for key, (at, of) in made.states.items()]
            if states:
                connection.execute(upsert(self._engine, _states, (*_PLACE, "key"), ("last", "value")), states)
            outbox = [
                {**self._where, "seq": each.seq, "kind": each.kind, "sinks": each.sinks, "body": each.body}
                for each in made.outbox
            ]
            if outbox:
                connection.execute(_outbox.insert(), outbox)
            record = {"number": made.progress.batch, "accepted_at": made.progress.accepted_at}
            connection.execute(_batches.insert(), {**self._where, **record, "body": encode_record(made.record)})
            connection.execute(self._update(_heads).values(progress=encode_progress(made.progress)))
            self._forget(connection, made)

    def erasures(self) -> int:
        with self._reading() as connection:
            return self._erasures(connection)

    def erase(self, erasure: Erasure, *, dry_run: bool = False) -> int:
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(self._update(_heads).values(epoch=_heads.c.epoch))  # no batch is committed meanwhile
            keys = [key for key in connection.scalars(self._rows(_states, "key")) if erasure.has(key)]
            batches = {
                row.number: encode_record(left)
                for row in connection.execute(self._rows(_batches, "number", "body"))
                if (left := erasure.batch(decode_record(row.body))) is not None
            }
            entries = [
                entry
                for row in connection.execute(self._rows(_outbox, "seq", "kind", "sinks", "body"))
                if (entry := erasure.entry(Waiting(*row))) is not None
            ]
            count = len(keys) + len(batches) + len(entries)
            if count and not dry_run:
                for start in range(0, len(keys), _KEYS):
                    connection.execute(self._delete(_states).where(_states.c.key.in_(keys[start : start + _KEYS])))
                for number, body in batches.items():
                    connection.execute(self._update(_batches).where(_batches.c.number == number).values(body=body))
                for each in entries:
                    changed = {"sinks": each.sinks, "body": each.body}
                    connection.execute(self._update(_outbox).where(_outbox.c.seq == each.seq).values(changed))
                noted = b"%d" % (self._erasures(connection) + 1)
                new = {**self._erasures_at, "epoch": 0, "running": noted}
                connection.execute(upsert(self._engine, _heads, _PLACE, ("running",)), new)
        if not dry_run and self._engine.dialect.name == "postgresql":
            tables = ", ".join(each.name for each in (_states, _batches, _outbox))
            with catalog_errors(self._name), self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text(f"VACUUM (FULL) {tables}"))
        return count

    def _erasures(self, connection: sa.Connection) -> int:
        here = [_heads.c[name] == value for name, value in self._erasures_at.items()]
        return int(connection.scalar(sa.select(_heads.c.running).where(*here)) or 0)

    @property
    def _erasures_at(self) -> dict[str, Any]:
        return {**self._where, "partition": _ERASURES - self._place[2]}

    def _expire(self, connection: sa.Connection, made: Commit, before: int) -> None:
        query = self._rows(_states, "key", "value").where(_states.c.last < before).limit(_EXPIRED_AT_ONCE)
        gone = {row.key: row.value for row in connection.execute(query) if row.key not in made.states}
        for key, value in gone.items():
            made.record.undo.setdefault(key, value)
        if gone:
            connection.execute(self._delete(_states).where(_states.c.key.in_(list(gone))))

    def _forget(self, connection: sa.Connection, made: Commit) -> None:
        done = self._least(connection, _sinks.c.number >= 0)
        if done is not None:
            connection.execute(self._delete(_outbox).where(_outbox.c.seq <= done))
        logged = self._least(connection, _sinks.c.number < 0)
        query = self._rows(_batches, "number", "accepted_at").order_by(_batches.c.number)
        last = 0
        for number, accepted_at in connection.execute(query.limit(_FORGOTTEN_AT_ONCE)).all():
            if accepted_at >= made.kept_since or (logged is not None and number > logged):
                break
            last = number
        if last:
            connection.execute(self._delete(_batches).where(_batches.c.number <= last))

    # Batches

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            self._snapshot = connection
            try:
                yield
            finally:
                self._snapshot = None

    def batches(self, after: int = 0, *, limit: int = -1) -> Iterator[tuple[int, BatchRecord]]:
        while limit and (found := self._page(_batches.c.number > after, _batches.c.number, limit)):
            yield from found
            after, limit = found[-1][0], limit - len(found) if limit > 0 else limit

    def newest_batches(self) -> Iterator[tuple[int, BatchRecord]]:
        before = 1 << 62
        while found := self._page(_batches.c.number < before, _batches.c.number.desc()):
            yield from found
            before = found[-1][0]

    def _page(
        self, which: sa.ColumnElement[bool], order: sa.ColumnElement[int], limit: int = -1
    ) -> list[tuple[int, BatchRecord]]:
        query = self._rows(_batches, "number", "body").where(which).order_by(order)
        with self._reading() as connection:
            rows = connection.execute(query.limit(_PAGE if limit < 0 else min(_PAGE, limit))).all()
        return [(row.number, decode_record(row.body)) for row in rows]

    # Sinks

    def enlist(self, outputs: Sequence[str], batches: Sequence[str] = ()) -> dict[str, int]:
        with self._writing() as connection:
            progress = self._progress(connection)
            seq, batch = (progress.seq, progress.batch) if progress else (0, 0)
            wanted = (*outputs, *batches)
            connection.execute(self._delete(_sinks).where(_sinks.c.id.not_in(wanted)))
            numbers: dict[str, int] = {
                row.id: row.number for row in connection.execute(self._rows(_sinks, "id", "number"))
            }
            for id_, number in fresh_numbers(dict(numbers), outputs, batches):
                numbers[id_] = number
                new = {"id": id_, "number": number, "done": batch if number < 0 else seq, "note": b""}
                connection.execute(_sinks.insert(), {**self._where, **new})
        return numbers

    def sinks(self) -> dict[str, int]:
        with self._reading() as connection:
            return {row.id: row.number for row in connection.execute(self._rows(_sinks, "id", "number"))}

    def number(self, sink: str) -> int:
        found = self.sinks().get(sink)
        if found is None:
            raise NotFound(f"Partition {self._where['partition']} has no sink {sink!r}.")
        return found

    def done(self, sink: str) -> int:
        with self._reading() as connection:
            return int(connection.scalar(self._rows(_sinks, "done").where(_sinks.c.id == sink)) or 0)

    def note(self, sink: str) -> bytes:
        with self._reading() as connection:
            return bytes(connection.scalar(self._rows(_sinks, "note").where(_sinks.c.id == sink)) or b"")

    def deliver(
        self,
        sink: str,
        done: int | None = None,
        note: bytes | None = None,
        *,
        durable: bool = False,  # noqa: ARG002
    ) -> None:
        changed = {name: value for name, value in (("done", done), ("note", note)) if value is not None}
        with self._writing() as connection:
            connection.execute(self._update(_sinks).where(_sinks.c.id == sink).values(changed))

    def waiting(self, after: int, limit: int = 1000, until: int = (1 << 62)) -> list[Waiting]:
        query = self._rows(_outbox, "seq", "kind", "sinks", "body").where(_outbox.c.seq > after, _outbox.c.seq <= until)
        with self._reading() as connection:
            return [Waiting(*row) for row in connection.execute(query.order_by(_outbox.c.seq).limit(limit))]

    def delivered(self) -> int:
        with self._reading() as connection:
            return self._delivered(connection)

    def undelivered(self) -> int:
        with self._reading() as connection:
            progress = self._progress(connection)
            return 0 if progress is None else progress.seq - self._delivered(connection)

    # Deaths

    def opened(self) -> tuple[bool, int]:
        with self._writing() as connection:
            found = died(connection.scalar(self._rows(_heads, "running")), self._next(connection))
            self._attempt(connection, found[1])
        return found

    def attempt(self, number: int) -> None:
        with self._writing() as connection:
            self._attempt(connection, number)

    def survived(self) -> None:
        with self._writing() as connection:
            connection.execute(self._update(_heads).values(running=None))

    def _attempt(self, connection: sa.Connection, number: int) -> None:
        noted = b"%d %s" % (number, self._next(connection))
        connection.execute(self._update(_heads).values(running=noted))

    def _next(self, connection: sa.Connection) -> bytes:
        progress = self._progress(connection)
        return b"" if progress is None else progress.next.encode()

    def _progress(self, connection: sa.Connection) -> Progress | None:
        found = connection.scalar(self._rows(_heads, "progress"))
        return None if found is None else decode_progress(found)

    def _delivered(self, connection: sa.Connection) -> int:
        return self._least(connection, _sinks.c.number >= 0) or 0

    def _least(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> int | None:
        """Return how far the slowest of some sinks is."""
        found: int | None = connection.scalar(sa.select(sa.func.min(_sinks.c.done)).where(*self._here(_sinks), which))
        return found

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        if self._snapshot is not None:
            yield self._snapshot
            return
        with catalog_errors(self._name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with catalog_errors(self._name), self._engine.begin() as connection:
            # A write first, so that SQLite takes its lock before anything is read.
            connection.execute(self._update(_heads).values(epoch=_heads.c.epoch))
            if connection.scalar(self._rows(_heads, "epoch")) != self._epoch:
                raise self._lost()
            yield connection

    def _lost(self) -> Exception:
        _, endpoint, partition = self._place
        return lost(endpoint, partition)

    def _rows(self, table: sa.Table, *columns: str) -> sa.Select[Any]:
        return sa.select(*(table.c[name] for name in columns)).where(*self._here(table))

    def _update(self, table: sa.Table) -> sa.Update:
        return table.update().where(*self._here(table))

    def _delete(self, table: sa.Table) -> sa.Delete:
        return table.delete().where(*self._here(table))

    def _here(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        return [table.c[name] == value for name, value in self._where.items()]
