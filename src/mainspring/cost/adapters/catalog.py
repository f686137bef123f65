"""Usage in the catalog: a row for each hour, subject and measure; the subjects in a table of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata, writing
from mainspring.core.time import DAY, HOUR
from mainspring.cost.ports import FIELDS
from mainspring.cost.usage import MOST_SUBJECTS, Subject, Usage, bounded, fitting, order, shortened, summed

usage_subjects = sa.Table(
    "usage_subjects",
    metadata,
    sa.Column("digest", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("id", sa.String(160), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("key", sa.String(128), nullable=False),
    sa.Column("teams", sa.Text, nullable=False),
    sa.Column("inside", sa.Boolean, nullable=False),
)

usage_amounts = sa.Table(
    "usage_amounts",
    metadata,
    sa.Column("machine", sa.String(64), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("span", sa.BigInteger, primary_key=True),
    sa.Column("subject", sa.String(32), primary_key=True),
    sa.Column("measure", sa.String(32), primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Index("usage_amounts_by_start", "start"),
)

usage_sources = sa.Table(
    "usage_sources",
    metadata,
    sa.Column("source", sa.String(128), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("newest", sa.BigInteger, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)

_MOST = 2**63 - 1  # of a column


class CatalogUsage:
    """Usage in the catalog's database."""

    def __init__(self, engine: sa.Engine, most: int = MOST_SUBJECTS) -> None:
        self._engine = engine
        self._most = most
        self._name = str(engine.url.database)

    def add(self, source: str, sequence: int, usages: Sequence[Usage], state: bytes = b"") -> bool:
        with catalog_errors(self._name), writing(self._engine) as connection:
            newest = max((each.start for each in usages), default=0)
            if not self._claim(connection, source, sequence, newest, state):
                return False
            hours = summed(
                msgspec.structs.replace(each, start=each.start - each.start % HOUR, subject=shortened(each.subject))
                for each in usages
            )
            self._put(connection, HOUR, self._within(connection, hours))
        return True

    def _claim(self, connection: sa.Connection, source: str, sequence: int, newest: int, state: bytes) -> bool:
        statement = self._insert(usage_sources)
        new = statement.excluded
        table = usage_sources.c
        later = sa.case((new.newest > table.newest, new.newest), else_=table.newest)
        statement = statement.on_conflict_do_update(
            index_elements=["source"],
            set_={"sequence": new.sequence, "newest": later, "state": new.state},
            where=table.sequence < new.sequence,
        ).returning(table.sequence)
        row = {"source": source, "sequence": sequence, "newest": newest, "state": state}
        return connection.execute(statement, row).first() is not None

    def _within(self, connection: sa.Connection, usages: Sequence[Usage]) -> list[Usage]:
        """Return usages of hours whose subjects, with those that they have, are not too many."""
        known: dict[tuple[str, int], set[str]] = {}
        found = []
        for each in usages:
            place = each.machine, each.start
            if place not in known:
                table = usage_amounts.c
                query = sa.select(table.subject).distinct()
                query = query.where(table.machine == each.machine, table.start == each.start, table.span == HOUR)
                known[place] = set(connection.scalars(query))
            found.append(msgspec.structs.replace(each, subject=self._fitted(each.subject, known[place])))
        return summed(found)

    def _fitted(self, subject: Subject, known: set[str]) -> Subject:
        found = fitting(subject, lambda each: _digest(each) in known, len(known), self._most)
        known.add(_digest(found))
        return found

    def _put(self, connection: sa.Connection, span: int, usages: Iterable[Usage]) -> None:
        subjects, rows = {}, []
        for each in usages:
            digest = _digest(each.subject)
            subjects[digest] = each.subject
            rows.append({
                "machine": each.machine, "start": each.start, "span": span, "subject": digest, "measure": each.measure,
                "amount": min(each.amount, _MOST),
            })  # fmt: skip
        if not rows:
            return
        # In a fixed order, so that two writers of the same rows cannot deadlock.
        described = [_row(digest, subjects[digest]) for digest in sorted(subjects)]
        connection.execute(self._insert(usage_subjects).on_conflict_do_nothing(), described)
        statement = self._insert(usage_amounts)
        keys = ["machine", "start", "span", "subject", "measure"]
        total = usage_amounts.c.amount + statement.excluded.amount
        statement = statement.on_conflict_do_update(index_elements=keys, set_={"amount": total})
        connection.execute(statement, sorted(rows, key=lambda row: tuple(row[name] for name in keys)))

    def _insert(self, table: sa.Table) -> Any:
        from sqlalchemy.dialects import postgresql, sqlite

        return (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)

    def last(self, source: str) -> tuple[int, bytes]:
        query = sa.select(usage_sources.c.sequence, usage_sources.c.state).where(usage_sources.c.source == source)
        with catalog_errors(self._name), self._engine.connect() as connection:
            found = connection.execute(query).first()
        return (0, b"") if found is None else (int(found[0]), bytes(found[1]))

    def read(
        self,
        since: int,
        until: int,
        *,
        by: Collection[str] = FIELDS,
        daily: bool = True,
        kinds: Collection[str] | None = None,
    ) -> list[Usage]:
        amounts, subjects = usage_amounts.c, usage_subjects.c
        day = (amounts.start - amounts.start % DAY) if daily else sa.literal(0)
        machine = amounts.machine if "machine" in by else sa.literal("")
        fields = [subjects[name] if name in by else sa.literal("") for name in FIELDS[1:]]
        columns = [
            each.label(name)
            for each, name in zip(
                (machine, day, *fields, subjects.inside, amounts.measure),
                ("machine", "day", *FIELDS[1:], "inside", "measure"),
                strict=True,
            )
        ]
        grouped = [each for each in columns if not isinstance(each.element, sa.BindParameter)]
        query = (
            sa.select(*columns, sa.func.sum(amounts.amount))
            .join(usage_subjects, subjects.digest == amounts.subject)
            .where(amounts.start >= since, amounts.start < until)
            .group_by(*grouped)
        )
        if kinds is not None:
            query = query.where(subjects.kind.in_(kinds))
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return sorted(map(_usage, rows), key=order)

    def roll_up(self, before: int, forget: int = 0) -> int:
        amounts, until = usage_amounts.c, before - before % DAY
        with catalog_errors(self._name), writing(self._engine) as connection:
            keep_writers_out(connection, usage_amounts)
            left = connection.execute(usage_amounts.delete().where(amounts.start < forget)).rowcount
            connection.execute(usage_sources.delete().where(usage_sources.c.newest < forget))
            day = amounts.start - amounts.start % DAY
            old = sa.and_(amounts.span == HOUR, amounts.start < until)
            for start in connection.scalars(sa.select(day).where(old).distinct()).all():
                left += self._merge(connection, start)
            used = sa.select(amounts.subject)
            connection.execute(usage_subjects.delete().where(usage_subjects.c.digest.not_in(used)))
        return left

    def _merge(self, connection: sa.Connection, start: int) -> int:
        """Make days of the hours of a day. Returns by how many rows they are fewer."""
        amounts, subjects = usage_amounts.c, usage_subjects.c
        of_day = sa.and_(amounts.start >= start, amounts.start < start + DAY)
        fields = (amounts.machine, sa.literal(start), *(subjects[name] for name in FIELDS[1:]), subjects.inside)
        query = (
            sa.select(*fields, amounts.measure, amounts.amount)
            .join(usage_subjects, subjects.digest == amounts.subject)
            .where(of_day)
        )
        days = bounded((_usage(row) for row in connection.execute(query)), self._most)
        deleted = connection.execute(usage_amounts.delete().where(of_day)).rowcount
        self._put(connection, DAY, days)
        return deleted - len(days)


def _usage(row: Any) -> Usage:
    machine, day, kind, id, version, model, key, teams, inside, measure, amount = row
    named = tuple(msgspec.json.decode(teams, type=list[str])) if teams else ()
    subject = Subject(kind, id, version, model, key, named, bool(inside))
    return Usage(machine=machine, start=int(day), subject=subject, measure=measure, amount=int(amount))


def _row(digest: str, subject: Subject) -> dict[str, Any]:
    row = msgspec.structs.asdict(subject)
    return {**row, "teams": msgspec.json.encode(subject.teams).decode() if subject.teams else "", "digest": digest}


def _digest(subject: Subject) -> str:
    return blake2b(msgspec.json.encode(msgspec.structs.astuple(subject)), digest_size=16).hexdigest()
