"""Fleets in the catalog: devices and rollouts as documents, changed by compare-and-set where two may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.ids import new_id
from mainspring.core.time import DAY
from mainspring.deploy.fleet.model import Device, Refusal, Rollout, Uploaded

_KEPT_REFUSALS = 200
_KEPT_DAYS = 8

edge_devices = sa.Table(
    "edge_devices",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("package", sa.String(128), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
edge_rollouts = sa.Table(
    "edge_rollouts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("package", sa.String(128), nullable=False),
    sa.Column("live", sa.String(128), unique=True),  # the package while the rollout runs: at most one does
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Index("edge_rollouts_by_time", "started_at", "id"),
)
edge_refusals = sa.Table(
    "edge_refusals",
    metadata,
    sa.Column("device", sa.String(64), primary_key=True),
    sa.Column("reason", sa.String(64), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last_at", sa.BigInteger, nullable=False),
)
edge_uploads = sa.Table(
    "edge_uploads",
    metadata,
    sa.Column("device", sa.String(64), primary_key=True),
    sa.Column("queue", sa.String(32), primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("begun", sa.BigInteger, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
edge_sketches = sa.Table(
    "edge_sketches",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("batch", sa.String(32), index=True),  # under which they are being added to the monitor's store
    sa.Column("document", sa.LargeBinary, nullable=False),
)
edge_days = sa.Table(
    "edge_days",
    metadata,
    sa.Column("device", sa.String(64), primary_key=True),
    sa.Column("day", sa.BigInteger, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


class CatalogFleet:
    """`FleetStore`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, device: Device) -> None:
        there = self.device(device.id)
        if there is not None:
            raise Conflict(
                f"Device {device.id!r} is registered for {there.package!r} with the key {there.key[:12]}….",
                fix=f"give the device another id; or `mainspring edge remove {device.id}` first.",
            )
        with catalog_errors(self._name), self._engine.begin() as connection:
            row = {"id": device.id, "package": device.package, "document": msgspec.json.encode(device)}
            connection.execute(edge_devices.insert().values(row))

    def remove(self, id: str) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            if not connection.execute(edge_devices.delete().where(edge_devices.c.id == id)).rowcount:
                raise NotFound(f"There is no device {id!r}.", fix="`mainspring edge devices` lists them.")
            for table in (edge_uploads, edge_days):
                connection.execute(table.delete().where(table.c.device == id))

    def devices(self) -> list[Device]:
        rows = self._read(sa.select(edge_devices.c.document).order_by(edge_devices.c.id))
        return [msgspec.json.decode(row.document, type=Device) for row in rows]

    def device(self, id: str) -> Device | None:
        rows = self._read(sa.select(edge_devices.c.document).where(edge_devices.c.id == id))
        return msgspec.json.decode(rows[0].document, type=Device) if rows else None

    def keep(self, devices: Sequence[Device]) -> None:
        if not devices:
            return
        change = (
            edge_devices.update()
            .where(edge_devices.c.id == sa.bindparam("changed"))
            .values(document=sa.bindparam("content"))
        )
        rows = [{"changed": each.id, "content": msgspec.json.encode(each)} for each in devices]
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(change, rows)

    def begin(self, rollout: Rollout) -> Rollout:
        made = msgspec.structs.replace(rollout, revision=1)
        row = {"id": made.id, "package": made.package, "started_at": made.started_at, **_row(made)}
        try:
            with self._engine.begin() as connection:
                connection.execute(edge_rollouts.insert().values(row))
        except sa.exc.IntegrityError:
            raise Conflict(
                f"A rollout of {made.package!r} is running.",
                fix=f"wait for its end, or `mainspring edge rollout {made.package} --stop`.",
            ) from None
        return made

    def replace(self, rollout: Rollout) -> Rollout:
        made = msgspec.structs.replace(rollout, revision=rollout.revision + 1)
        mine = (edge_rollouts.c.id == made.id, edge_rollouts.c.revision == rollout.revision)
        with catalog_errors(self._name), self._engine.begin() as connection:
            if not connection.execute(edge_rollouts.update().where(*mine).values(_row(made))).rowcount:
                raise Conflict(f"The rollout {made.id} of {made.package!r} has changed.", fix="run the command again.")
        return made

    def rollouts(self, package: str | None = None, limit: int = 50) -> list[Rollout]:
        table = edge_rollouts.c
        query = sa.select(table.document).order_by(table.started_at.desc(), table.id.desc()).limit(limit)
        if package is not None:
            query = query.where(table.package == package)
        return [msgspec.json.decode(row.document, type=Rollout) for row in self._read(query)]

    def refuse(self, refusals: Mapping[tuple[str, str], int], at: int) -> None:
        table = edge_refusals.c
        with catalog_errors(self._name), self._engine.begin() as connection:
            for (device, reason), number in list(refusals.items())[:_KEPT_REFUSALS]:
                mine = (table.device == device, table.reason == reason)
                more = {"count": table.count + number, "last_at": at}
                if not connection.execute(edge_refusals.update().where(*mine).values(more)).rowcount:
                    row = {"device": device, "reason": reason, "count": number, "last_at": at}
                    connection.execute(edge_refusals.insert().values(row))
            order = (table.last_at.desc(), table.device, table.reason)
            old = connection.execute(
                sa.select(table.device, table.reason).order_by(*order).offset(_KEPT_REFUSALS).limit(1_000_000)
            ).all()
            for each in old:
                connection.execute(edge_refusals.delete().where(table.device == each[0], table.reason == each[1]))

    def refusals(self) -> list[Refusal]:
        rows = self._read(sa.select(edge_refusals).order_by(edge_refusals.c.last_at.desc(), edge_refusals.c.device))
        return [
            Refusal(device=row.device, reason=row.reason, count=row._mapping["count"], last_at=row.last_at)
            for row in rows
        ]

    def uploads(self) -> list[Uploaded]:
        rows = self._read(sa.select(edge_uploads.c.document).order_by(edge_uploads.c.device))
        return [msgspec.json.decode(row.document, type=Uploaded) for row in rows]

    def upload(self, device: str, queue: str) -> Uploaded:
        mine = (edge_uploads.c.device == device, edge_uploads.c.queue == queue)
        rows = self._read(sa.select(edge_uploads.c.document).where(*mine))
        return msgspec.json.decode(rows[0].document, type=Uploaded) if rows else Uploaded(device=device, queue=queue)

    def take(self, upload: Uploaded, waiting: Sequence[bytes] = (), days: Mapping[int, bytes] = {}) -> None:
        mine = (edge_uploads.c.device == upload.device, edge_uploads.c.queue == upload.queue)
        values = {"until": upload.until, "begun": upload.begun, "document": msgspec.json.encode(upload)}
        with catalog_errors(self._name), self._engine.begin() as connection:
            if not connection.execute(edge_uploads.update().where(*mine).values(values)).rowcount:
                row = {"device": upload.device, "queue": upload.queue, **values}
                connection.execute(edge_uploads.insert().values(row))
            if waiting:
                connection.execute(edge_sketches.insert(), [{"id": new_id(), "document": each} for each in waiting])
            if days:
                table, rows = edge_days.c, [{"device": upload.device, "day": d, "document": c} for d, c in days.items()]
                old = table.day.in_(days) | (table.day <= max(days) - _KEPT_DAYS * DAY)
                connection.execute(edge_days.delete().where(table.device == upload.device, old))
                connection.execute(edge_days.insert(), rows)

    def days(self, device: str) -> dict[int, bytes]:
        query = sa.select(edge_days.c.day, edge_days.c.document).where(edge_days.c.device == device)
        return {row.day: row.document for row in self._read(query.order_by(edge_days.c.day))}

    def waiting(self, most: int) -> tuple[str, list[bytes]] | None:
        table = edge_sketches.c
        with catalog_errors(self._name), self._engine.begin() as connection:
            # A batch whose process died keeps its key and its sketches, so that it is added once.
            key = connection.execute(sa.select(sa.func.min(table.batch))).scalar()
            if key is None:
                key, first = new_id(), sa.select(table.id).where(table.batch.is_(None)).order_by(table.id).limit(most)
                ids = connection.execute(first).scalars().all()
                connection.execute(edge_sketches.update().where(table.id.in_(ids)).values(batch=key))
            rows = connection.execute(sa.select(table.document).where(table.batch == key).order_by(table.id)).all()
        return (key, [row.document for row in rows]) if rows else None

    def added(self, key: str) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(edge_sketches.delete().where(edge_sketches.c.batch == key))

    def _read(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return connection.execute(query).all()


def _row(rollout: Rollout) -> dict[str, Any]:
    live = rollout.package if rollout.status == "running" else None
    return {"live": live, "revision": rollout.revision, "document": msgspec.json.encode(rollout)}
