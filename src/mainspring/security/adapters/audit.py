"""The audit log in the catalog: events, and the Merkle tree over them with its signed head.

An append holds the catalog's lock from the reading of the tree to its commit, so events and tree are always of one
state. Only the newest head is stored: an older one would let whoever can write to the catalog cut the log back to it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import after_commit, catalog_errors, keep_writers_out, metadata, together, writing
from mainspring.core.errors import Corrupt
from mainspring.core.ids import new_id
from mainspring.security.audit_leaves import commit, event_leaf
from mainspring.security.erasures import named
from mainspring.security.merkle import extend, root
from mainspring.security.model import AuditEntry, AuditEvent, AuditFilter, AuditRecord, AuditTree
from mainspring.security.ports import ADOPTED, ERASED, ITSELF, TREE_HEIGHTS
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import ForeignHead, Head, open_head, sign_head

Row = dict[str, Any]

_HASH_BYTES = 32

audit_events = sa.Table(
    "audit_events",
    metadata,
    # The number in the tree, which is dense; a plain INTEGER on SQLite, where that is the table's own key.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("salt", sa.LargeBinary(_HASH_BYTES)),
    sa.Column("commitment", sa.LargeBinary(_HASH_BYTES)),
    sa.Column("leaf", sa.LargeBinary(_HASH_BYTES), nullable=False),
)

audit_tree = sa.Table(
    "audit_tree",
    metadata,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),  # 0: one row
    sa.Column("origin", sa.String(128), nullable=False),  # name of the log in its heads
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),  # hashes side by side, of the largest subtree first
    sa.Column("note", sa.Text, nullable=False),
)

audit_subtrees = sa.Table(
    "audit_subtrees",
    metadata,
    sa.Column("height", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(_HASH_BYTES), nullable=False),
)

_COLUMNS = ("seq", "at", "actor", "action", "resource", "detail", "commitment", "leaf", "salt", "subject")
_TREE: dict[str, type] = {"only": int, "origin": str, "size": int, "frontier": bytes, "note": str}
_SURROGATE = re.compile("[\ud800-\udfff]")
_EVENT = (
    audit_events.c.seq, audit_events.c.at, audit_events.c.actor, audit_events.c.action, audit_events.c.resource,
    audit_events.c.detail,
    audit_events.c.subject,
)  # fmt: skip


def _storable(event: AuditEvent) -> AuditEvent:
    """Return an event with texts that every database accepts. Postgres rejects NUL, and none stores half of a surrogate
    pair; a caller's text must not prevent the logging of an event.
    """
    joined = f"{event.actor}{event.action}{event.resource}{event.detail}{event.subject}"
    if joined.isascii() and "\0" not in joined:
        return event
    actor, action, resource, detail = map(_storable_text, (event.actor, event.action, event.resource, event.detail))
    subject = None if event.subject is None else _storable_text(event.subject)
    return AuditEvent(event.at, actor, action, resource, detail, subject)


def _storable_text(text: str) -> str:
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _insert(connection: sa.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows of events. As tuples to the driver: SQLAlchemy would take most of the time."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(_COLUMNS))
    connection.exec_driver_sql(f"INSERT INTO audit_events ({', '.join(_COLUMNS)}) VALUES ({marks})", rows)


class CatalogAuditLog:
    """Args:
    key: Returns the key that signs heads; called at the first append.
    """

    def __init__(self, engine: sa.Engine, key: Callable[[], SigningKey]) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)
        self._key = key
        self._last: Row | None = None  # of the tree, as this object wrote it

    def together(self) -> AbstractContextManager[None]:
        return together(self._engine)

    def append(self, events: Sequence[AuditEvent], *, unless_among: int = 0) -> int | None:
        added = [_storable(event) for event in events]
        if not added:
            return None
        with catalog_errors(self._name), self._writing() as connection:
            if unless_among:
                there = set(_newest(connection, unless_among))
                added = [event for event in added if event not in there]
            if not added:
                return None
            last = self._add(connection, added)
        after_commit(self._engine, lambda: self._keep(last))
        return int(last["size"]) - 1

    def _keep(self, last: Row) -> None:
        self._last = last

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Context of a transaction in which no other process appends."""
        with writing(self._engine) as connection:
            keep_writers_out(connection, audit_tree)
            yield connection

    def _add(self, connection: sa.Connection, added: list[AuditEvent]) -> Row:
        """Append to events, subtrees and tree; return the tree's row."""
        found, damaged = _tree_of(_stored(connection, sa.select(*_raw(audit_tree, _TREE)).limit(2)))
        if damaged:
            raise Corrupt(damaged, fix="run `mainspring audit verify`, then restore the catalog from a backup.")
        before: Row = {"only": 0, "origin": f"{ITSELF}/{new_id()}", "size": 0, "frontier": b"", "note": ""}
        before |= found or {}
        size, frontier, key = before["size"], _hashes(before["frontier"]), self._key()
        self._check_newer(size)
        if found and before != self._last and (why := _foreign(before, root(frontier), key)):
            adopted = f"{size} events, root {b64encode(root(frontier)).decode()}: {why}"
            added = [AuditEvent(added[0].at, ITSELF, ADOPTED, "audit", adopted), *added]
        sealed = [(None, None) if event.subject is None else commit(event.subject) for event in added]
        rows = [
            (number, e.at, e.actor, e.action, e.resource, e.detail, commitment)
            for number, (e, (_, commitment)) in enumerate(zip(added, sealed, strict=True), size)
        ]
        leaves = [event_leaf(*row) for row in rows]
        try:
            more = zip(rows, leaves, sealed, added, strict=True)
            _insert(connection, [(*row, leaf, salt, event.subject) for row, leaf, (salt, _), event in more])
        except sa.exc.IntegrityError as error:
            raise _occupied(size) from error
        frontier, completed = extend(frontier, size, leaves)
        subtrees = [
            {"height": height, "position": position, "hash": each}
            for height in TREE_HEIGHTS
            if height < len(completed)
            for position, each in enumerate(completed[height], size >> height)
        ]
        if subtrees:
            connection.execute(audit_subtrees.insert(), subtrees)
        size += len(rows)
        head = Head(before["origin"], size, root(frontier))
        after = {**before, "size": size, "frontier": b"".join(frontier), "note": sign_head(head, key)}
        connection.execute(audit_tree.update().values(after) if found else audit_tree.insert().values(after))
        return after

    def _check_newer(self, size: int) -> None:
        if self._last is not None and size < self._last["size"]:
            had = self._last["size"]
            raise Corrupt(
                f"The audit log has {size:,} events, and had {had:,} when this process appended the last.",
                fix="run `mainspring audit verify`; if the catalog was restored from a backup, restart this process.",
            )

    def check(self) -> None:
        tree = self.tree()
        size = 0 if tree is None else tree.size
        self._check_newer(size)
        if tree is None:
            return
        if tree.damaged:
            raise Corrupt(tree.damaged, fix="run `mainspring audit verify`, then restore the catalog from a backup.")
        if tree.last is not None and tree.last >= size:
            raise _occupied(size)
        if tree.origin:
            _foreign({"origin": tree.origin, "size": size, "note": tree.note}, root(tree.frontier), self._key())

    def read(self, limit: int = 100) -> list[AuditEvent]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return _newest(connection, limit)

    def search(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        columns = audit_events.c
        query = sa.select(*_EVENT)
        if wanted.since is not None:
            query = query.where(columns.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(columns.at < wanted.until)
        if before is not None:
            query = query.where(columns.seq < before)
        if wanted.subject:
            query = query.where(columns.subject == _storable_text(wanted.subject))
        if wanted.action:
            query = query.where(columns.action.istartswith(wanted.action, autoescape=True))
        for name in ("actor", "resource", "detail"):
            if part := getattr(wanted, name):
                query = query.where(columns[name].icontains(part, autoescape=True))
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query.order_by(columns.seq.desc()).limit(limit))
            return [AuditEntry(row.seq, AuditEvent(*row[1:])) for row in rows]

    def erase(self, subject: str, at: int, actor: str) -> int:
        mine = audit_events.c.subject == _storable_text(subject)
        with catalog_errors(self._name), self._writing() as connection:
            query = sa.select(audit_events.c.seq).where(mine).order_by(audit_events.c.seq)
            numbers = connection.execute(query).scalars().all()
            if numbers:
                connection.execute(audit_events.update().where(mine).values(subject=None, salt=None))
                last = self._add(connection, [_storable(AuditEvent(at, actor, ERASED, "audit", named(numbers)))])
        if numbers:
            after_commit(self._engine, lambda: self._keep(last))
        return len(numbers)

    def tree(self) -> AuditTree | None:
        number = audit_events.c.seq
        ends = sa.select(sa.func.min(number)).scalar_subquery(), sa.select(sa.func.max(number)).scalar_subquery()
        query = sa.select(*_raw(audit_tree, _TREE), *ends).limit(2)  # of one moment
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = _stored(connection, query)
            row, damaged = _tree_of(rows)
            if row is None:
                first, last = connection.execute(sa.select(*ends)).one()
                return None if last is None else AuditTree("", 0, (), "", first, last)
        frontier, (first, last) = tuple(_hashes(row["frontier"])), rows[0][len(_TREE) :]
        return AuditTree(row["origin"], row["size"], frontier, row["note"], first, last, damaged)

    def records(self, begin: int, end: int) -> list[AuditRecord]:
        of = audit_events.c
        query = sa.select(*_raw(audit_events, _COLUMNS)).where(of.seq >= begin, of.seq < end).order_by(of.seq)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [AuditRecord._make(row) for row in _stored(connection, query)]

    def hashes(self, height: int, begin: int, end: int) -> list[bytes | None]:
        at: Any
        if height == 0:
            at, query = audit_events.c.seq, sa.select(*_raw(audit_events, ("seq", "leaf")))
        else:
            at = audit_subtrees.c.position
            query = sa.select(*_raw(audit_subtrees, ("position", "hash"))).where(audit_subtrees.c.height == height)
        found: list[bytes | None] = [None] * (end - begin)
        with catalog_errors(self._name), self._engine.connect() as connection:
            for position, each in connection.execute(query.where(at >= begin, at < end)):
                found[position - begin] = each if isinstance(each, bytes) else None
        return found


def _occupied(size: int) -> Corrupt:
    return Corrupt(
        f"The audit log has an event of the number {size} or after it, which is not in its tree.",
        fix="run `mainspring audit verify`, then restore the catalog from a backup.",
    )


def _foreign(row: Row, there: bytes, key: SigningKey) -> str:
    """Return why a tree's head is to be taken over; empty if this key signed it.

    Args:
        there: Root of the tree.

    Raises:
        Corrupt: This key signed another tree.
    """
    if not row["note"]:
        return "their head was not signed"
    try:
        head = open_head(row["note"], key.public)
    except ForeignHead:
        return "their head was signed by another key"
    if head != Head(row["origin"], row["size"], there):
        raise Corrupt(
            f"The audit log's tree of {row['size']:,} events is not the one that was signed, of {head.size:,} events.",
            fix="run `mainspring audit verify`, then restore the catalog from a backup.",
        )
    return ""


def _raw(table: sa.Table, names: Iterable[str]) -> list[sa.ColumnElement[Any]]:
    """Return columns whose values are read as they are stored: SQLite takes any type in each."""
    return [sa.type_coerce(table.c[name], sa.types.NULLTYPE) for name in names]


def _stored(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
    """Return the rows of a query, with surrogates for the bytes of texts that are not UTF-8: they fit no hash."""
    try:
        return connection.execute(query).all()
    except sa.exc.OperationalError as error:
        driver: Any = connection.connection.driver_connection
        if "decode to UTF-8" not in str(error.orig) or connection.dialect.name != "sqlite":
            raise
    driver.text_factory = lambda content: content.decode(errors="surrogateescape")
    try:
        return connection.execute(query).all()
    finally:
        driver.text_factory = str


def _tree_of(rows: Sequence[sa.Row[Any]]) -> tuple[Row | None, str]:
    """Return the tree's row, `None` if there is none, and why it is damaged; what cannot be read of it is empty."""
    if not rows:
        return None, ""
    row: Row = dict(zip(_TREE, rows[0][: len(_TREE)], strict=True))
    wrong = [name for name, kind in _TREE.items() if not _is(row[name], kind)]
    damaged = f"The audit log's stored tree has no valid {', '.join(wrong)}." if wrong else ""
    if len(rows) > 1:
        damaged = "The audit log has several stored trees."
    return row | {name: _TREE[name]() for name in wrong}, damaged


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not (isinstance(value, str) and _SURROGATE.search(value))


def _hashes(joined: bytes) -> list[bytes]:
    return [bytes(joined[at : at + _HASH_BYTES]) for at in range(0, len(joined), _HASH_BYTES)]


def _newest(connection: sa.Connection, limit: int) -> list[AuditEvent]:
    query = sa.select(*_EVENT[1:]).order_by(audit_events.c.seq.desc()).limit(limit)
    return [AuditEvent(*row) for row in connection.execute(query)]
