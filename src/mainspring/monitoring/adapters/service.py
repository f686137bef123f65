"""Samples of service health in the catalog, one document per row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata, upsert
from mainspring.core.time import HOUR
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample, by_hour, merged

service_samples = sa.Table(
    "service_samples",
    metadata,
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("subject", sa.String(160), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("end", sa.BigInteger, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Index("service_samples_by_end", "end"),
)

service_states = sa.Table(
    "service_states",
    metadata,
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)


class CatalogService:
    """Samples and states in the catalog's database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def state(self, place: str) -> State | None:
        query = sa.select(service_states.c.document).where(service_states.c.place == place)
        with catalog_errors(self._name), self._engine.connect() as connection:
            document = connection.execute(query).scalar()
        try:
            return None if document is None else msgspec.msgpack.decode(document, type=State)
        except msgspec.MsgspecError:  # damaged, or from another release
            return None

    def save(self, place: str, samples: Sequence[Sample], state: State) -> None:
        last = upsert(self._engine, service_states, ("place",), ("document",))
        with catalog_errors(self._name), self._engine.begin() as connection:
            self._put(connection, place, samples)
            connection.execute(last, [{"place": place, "document": msgspec.msgpack.encode(state)}])

    def samples(self, since: int, until: int, subjects: Collection[str] | None = None) -> list[Sample]:
        table = service_samples.c
        query = (
            sa.select(table.document)
            .where(table.end > since, table.start < until)
            .order_by(table.start, table.end, table.subject, table.place)
        )
        if subjects is not None:
            query = query.where(table.subject.in_(subjects))
        with catalog_errors(self._name), self._engine.connect() as connection:
            documents = connection.execute(query).scalars().all()
        decode = msgspec.msgpack.Decoder(Sample).decode
        return [decode(document) for document in documents]

    def compact(self, *, merge_before: int, delete_before: int) -> None:
        table = service_samples.c
        old, hour = table.end <= merge_before // HOUR * HOUR, table.start // HOUR
        key = (table.place, table.subject, hour)
        several = sa.select(*key).where(old).group_by(*key).having(sa.func.count() > 1)
        decode = msgspec.msgpack.Decoder(Sample).decode
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, service_samples)
            connection.execute(service_samples.delete().where(table.end <= delete_before))
            for place, subject, number in connection.execute(several).all():
                rows = sa.and_(old, table.place == place, table.subject == subject, hour == number)
                samples = [decode(each) for each in connection.scalars(sa.select(table.document).where(rows))]
                connection.execute(service_samples.delete().where(rows))
                self._put(connection, place, by_hour(samples))

    def _put(self, connection: sa.Connection, place: str, samples: Sequence[Sample]) -> None:
        if not samples:
            return
        table = service_samples.c
        same = sa.select(table.document).where(
            table.place == place,
            table.start.in_({sample.start for sample in samples}),
            table.end.in_({sample.end for sample in samples}),
        )
        decode = msgspec.msgpack.Decoder(Sample).decode
        found = {(each.subject, each.start, each.end): each for each in map(decode, connection.scalars(same))}
        for sample in samples:
            key = sample.subject, sample.start, sample.end
            found[key] = merged([found[key], sample]) if key in found else sample
        statement = upsert(self._engine, service_samples, ("place", "subject", "start", "end"), ("document",))
        rows = [
            {
                "place": place,
                "subject": subject,
                "start": start,
                "end": end,
                "document": msgspec.msgpack.encode(sample),
            }
            for (subject, start, end), sample in sorted(found.items())
        ]
        connection.execute(statement, rows)
