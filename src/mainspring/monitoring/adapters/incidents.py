"""Incidents in the catalog, changed by compare-and-set; their messages; the parts of the monitor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert
from mainspring.core.errors import Conflict
from mainspring.core.time import HOUR
from mainspring.monitoring.incidents.model import WAITING, Incident, Outgoing, Part

_FARTHEST_US = 2 * HOUR  # a message is never due later than this

incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("lake", sa.String(64), nullable=False),
    sa.Column("open", sa.String(512)),  # the cause's key while the incident is open: at most one is
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("closed_through", sa.BigInteger),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.UniqueConstraint("lake", "open"),
    sa.Index("incidents_by_time", "lake", "opened_at", "id"),
)
incident_endpoints = sa.Table(
    "incident_endpoints",
    metadata,
    sa.Column("incident", sa.ForeignKey("incidents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("endpoint", sa.String(128), primary_key=True),
)
incident_messages = sa.Table(
    "incident_messages",
    metadata,
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("lake", sa.String(64), nullable=False),
    sa.Column("target", sa.String(128), nullable=False),
    sa.Column("incident", sa.ForeignKey("incidents.id", ondelete="CASCADE"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("incident_messages_due", "lake", "state", "target", "due_at"),
)
monitor_parts = sa.Table(
    "monitor_parts",
    metadata,
    sa.Column("lake", sa.String(64), primary_key=True),
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("part", sa.String(64), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)


class CatalogIncidents:
    """`IncidentStore` of the predictions in one lake; profiles with different lakes may share a catalog.

    Args:
        lake: Identifier of the lake.
    """

    def __init__(self, engine: sa.Engine, lake: str = "") -> None:
        self._engine = engine
        self._lake = lake
        self._name = engine.url.render_as_string(hide_password=True)

    def save(self, incidents_: Sequence[Incident], outgoing: Sequence[Outgoing] = ()) -> list[Incident]:
        made = [msgspec.structs.replace(each, revision=each.revision + 1) for each in incidents_]
        try:
            with self._writing() as connection:
                # First those that end, so that another may take over their cause.
                for old, new in sorted(zip(incidents_, made, strict=True), key=lambda pair: pair[1].is_open):
                    self._save(connection, old, new)
                if outgoing:
                    connection.execute(incident_messages.insert(), [self._message(each) for each in outgoing])
        except sa.exc.IntegrityError:
            raise Conflict(
                "An incident of the same cause has been opened meanwhile.", fix="run the command again."
            ) from None
        return made

    def _save(self, connection: sa.Connection, old: Incident, new: Incident) -> None:
        row = {
            "open": new.cause.key if new.is_open else None,
            "closed_through": new.closed_through,
            "revision": new.revision,
            "state": msgspec.json.encode(new).decode(),
        }
        if not old.revision:
            connection.execute(incidents.insert().values(id=new.id, lake=self._lake, opened_at=new.opened_at, **row))
            known: set[str] = set()
        else:
            mine = (incidents.c.id == old.id, incidents.c.revision == old.revision)
            if not connection.execute(incidents.update().where(*mine).values(**row)).rowcount:
                raise Conflict(f"The incident {old.id} has changed meanwhile.", fix="run the command again.")
            endpoints = sa.select(incident_endpoints.c.endpoint).where(incident_endpoints.c.incident == new.id)
            known = set(connection.scalars(endpoints))
        rows = [{"incident": new.id, "endpoint": each} for each in new.endpoints if each not in known]
        if rows:
            connection.execute(incident_endpoints.insert(), rows)

    def get(self, ids: Sequence[str]) -> list[Incident | None]:
        found = {each.id: each for each in self._read(self._all().where(incidents.c.id.in_(ids)))}
        return [found.get(id) for id in ids]

    def open(self) -> list[Incident]:
        return self._read(self._newest_first(self._all().where(incidents.c.open.is_not(None))))

    def closed(self, since: int) -> list[Incident]:
        ended = (incidents.c.open.is_(None), incidents.c.closed_through >= since)
        return self._read(self._newest_first(self._all().where(*ended)))

    def find(self, *, endpoint: str = "", before: tuple[int, str] | None = None, limit: int = 100) -> list[Incident]:
        query = self._newest_first(self._all()).limit(limit)
        if endpoint:
            named = sa.select(incident_endpoints.c.incident).where(incident_endpoints.c.endpoint == endpoint)
            query = query.where(incidents.c.id.in_(named))
        if before is not None:
            query = query.where(sa.tuple_(incidents.c.opened_at, incidents.c.id) < before)
        return self._read(query)

    def claim(self, target: str, now: int, until: int, limit: int) -> list[Outgoing]:
        table = incident_messages.c
        query = (
            sa.select(table.message)
            .where(table.lake == self._lake, table.state == WAITING, table.target == target, _is_due(now))
            .order_by(table.made_at, table.id)
            .limit(limit)
        )
        claimed = []
        with self._writing() as connection:
            for text in connection.scalars(query).all():
                old = msgspec.json.decode(text, type=Outgoing)
                new = msgspec.structs.replace(old, due_at=until, attempts=old.attempts + 1)
                mine = (table.id == old.id, table.due_at == old.due_at, table.state == WAITING)
                if connection.execute(incident_messages.update().where(*mine).values(**_sent(new))).rowcount:
                    claimed.append(new)
        return claimed

    def settle(self, outgoing: Sequence[Outgoing]) -> None:
        with self._writing() as connection:
            for each in outgoing:
                one = incident_messages.update().where(incident_messages.c.id == each.id)
                connection.execute(one.values(**_sent(each)))

    def outgoing(
        self, *, incidents: Collection[str] = (), states: Collection[str] = (), since: int = 0, limit: int = 1_000
    ) -> list[Outgoing]:
        table = incident_messages.c
        query = sa.select(table.message).where(table.lake == self._lake, table.made_at >= since)
        if incidents:
            query = query.where(table.incident.in_(incidents))
        if states:
            query = query.where(table.state.in_(states))
        query = query.order_by(table.made_at.desc(), table.id.desc()).limit(limit)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Outgoing) for text in connection.scalars(query)]

    def record(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        # In a fixed order, so that two writers of the same rows cannot deadlock.
        rows = [
            {
                "lake": self._lake,
                "endpoint": each.endpoint,
                "part": each.part,
                "document": msgspec.json.encode(each).decode(),
            }
            for each in sorted(parts, key=lambda part: (part.endpoint, part.part))
        ]
        statement = upsert(self._engine, monitor_parts, ("lake", "endpoint", "part"), ("document",))
        with self._writing() as connection:
            connection.execute(statement, rows)

    def parts(self) -> list[Part]:
        table = monitor_parts.c
        query = sa.select(table.document).where(table.lake == self._lake).order_by(table.endpoint, table.part)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Part) for text in connection.scalars(query)]

    def _all(self) -> sa.Select[Any]:
        return sa.select(incidents.c.state).where(incidents.c.lake == self._lake)

    def _newest_first(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query.order_by(incidents.c.opened_at.desc(), incidents.c.id.desc())

    def _read(self, query: sa.Select[Any]) -> list[Incident]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Incident) for text in connection.scalars(query)]

    def _message(self, message: Outgoing) -> dict[str, Any]:
        row = {"id": message.id, "target": message.target, "incident": message.incident, "made_at": message.made_at}
        return {**row, "lake": self._lake, **_sent(message)}

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Open a write transaction. A violated constraint is the caller's to tell."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            with catalog_errors(self._name):
                raise error


def _is_due(now: int) -> sa.ColumnElement[bool]:
    """Return the condition of a message that is due, also if it is due hours ahead: the clock went back."""
    due_at = incident_messages.c.due_at
    return sa.or_(due_at <= now, due_at > now + _FARTHEST_US)


def _sent(message: Outgoing) -> dict[str, Any]:
    return {"state": message.state, "due_at": message.due_at, "message": msgspec.json.encode(message).decode()}
