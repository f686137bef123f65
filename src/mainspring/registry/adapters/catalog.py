"""Alias moves, approvals, deletions and trusted keys in the catalog.

The newest move of an alias decides which version it names. The catalog is the source of truth for aliases; a tracking
store's own aliases mirror it. A crash between the two stores can leave the mirror behind, never the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata, writing
from mainspring.core.errors import Conflict, NotFound
from mainspring.registry.model import AliasMove, Approval, Deletion, TrustedKey, Waiver, Withdrawal, alias_conflict

__all__ = ["AliasMoves", "CatalogApprovals", "CatalogDeletions", "CatalogTrustedKeys", "CatalogWaivers", "alias_moves"]

alias_moves = sa.Table(
    "alias_moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("alias", sa.String(128), nullable=False),
    sa.Column("old", sa.String(32)),
    sa.Column("new", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("domain_at", sa.BigInteger),
    sa.Index("alias_moves_by_alias", "model", "alias", "id"),
)
model_approvals = sa.Table(
    "model_approvals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("approver", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model", "version", "approver"),
)
model_withdrawals = sa.Table(  # withdrawn approvals, moved out of `model_approvals`
    "model_withdrawals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("approver", sa.String(256), nullable=False),
    sa.Column("approval_reason", sa.Text, nullable=False),
    sa.Column("approved_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)
model_waivers = sa.Table(
    "model_waivers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("ended_by", sa.String(256), nullable=False),
    sa.Index("model_waivers_by_version", "model", "version"),
)
model_deletions = sa.Table(
    "model_deletions",
    metadata,
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("version", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("claimed", sa.Boolean, nullable=False),
)
trusted_keys = sa.Table(
    "trusted_keys",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("public", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)


class AliasMoves:
    """The `alias_moves` table: reads and appends."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def exclusively(self) -> Iterator[sa.Connection]:
        """Open a transaction that excludes every other writer of the table; roll back on an exception."""
        with catalog_errors(str(self._engine.url.database)), writing(self._engine) as connection:
            keep_writers_out(connection, alias_moves)
            yield connection

    def append(self, move: AliasMove, connection: sa.Connection) -> None:
        """Add a move if the alias still names `move.old`.

        Raises:
            Conflict: The alias names another version.
        """
        newest = (
            sa.select(alias_moves.c.new)
            .where(alias_moves.c.model == move.model, alias_moves.c.alias == move.alias)
            .order_by(alias_moves.c.id.desc())
            .limit(1)
        )
        present = connection.execute(newest).scalar_one_or_none()
        if present != move.old:
            raise alias_conflict(move, present)
        connection.execute(
            alias_moves.insert().values(
                model=move.model,
                alias=move.alias,
                old=move.old,
                new=move.new,
                actor=move.actor,
                reason=move.reason,
                at=move.at,
                domain_at=move.domain_at,
            )
        )

    def current(self, model: str | None = None, within: sa.Connection | None = None) -> dict[tuple[str, str], str]:
        """Return a mapping of (model, alias) to the version it names, as a transaction sees it if one is given."""
        last = sa.select(sa.func.max(alias_moves.c.id)).group_by(alias_moves.c.model, alias_moves.c.alias)
        if model is not None:
            last = last.where(alias_moves.c.model == model)
        query = sa.select(alias_moves.c.model, alias_moves.c.alias, alias_moves.c.new).where(alias_moves.c.id.in_(last))
        with (
            catalog_errors(str(self._engine.url.database)),
            self._engine.connect() if within is None else nullcontext(within) as connection,
        ):
            return {(row.model, row.alias): row.new for row in connection.execute(query)}

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """Return the moves of a model, or of one of its aliases, newest first."""
        query = sa.select(alias_moves).where(alias_moves.c.model == model).order_by(alias_moves.c.id.desc())
        if alias is not None:
            query = query.where(alias_moves.c.alias == alias)
        with catalog_errors(str(self._engine.url.database)), self._engine.connect() as connection:
            return [
                AliasMove(row.model, row.alias, row.old, row.new, row.actor, row.reason, row.at, row.domain_at)
                for row in connection.execute(query)
            ]


class _Table:
    """Base of the decision tables: inserts whole rows and reads them back as mappings."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def _insert(self, table: sa.Table, decision: Any, already: Callable[[Any], Conflict]) -> None:
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    connection.execute(table.insert().values(**asdict(decision)))
            except sa.exc.IntegrityError:
                raise already(decision) from None

    def _delete(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> bool:
        with catalog_errors(self._name), self._engine.begin() as connection:
            return connection.execute(table.delete().where(*where)).rowcount > 0

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


class CatalogApprovals(_Table):
    """Approvals in the catalog: valid ones in one table, withdrawn ones in another."""

    def add(self, approval: Approval) -> None:
        self._insert(model_approvals, approval, _approved_already)

    def of(self, model: str, version: str | None = None) -> list[Approval]:
        columns = [column for column in model_approvals.c if column.name != "id"]
        query = sa.select(*columns).where(model_approvals.c.model == model).order_by(model_approvals.c.id.desc())
        if version is not None:
            query = query.where(model_approvals.c.version == version)
        return [Approval(**row) for row in self._rows(query)]

    def withdraw(self, model: str, version: str, approver: str, *, actor: str, reason: str, at: int) -> Withdrawal:
        table = model_approvals.c
        theirs = (table.model == model, table.version == version, table.approver == approver)
        with catalog_errors(self._name), self._engine.begin() as connection:
            # One statement deletes and reads, so only one of two concurrent withdrawals finds the row.
            gone = connection.execute(model_approvals.delete().where(*theirs).returning(*table)).mappings().first()
            if gone is None:
                raise _not_approved(model, version, approver)
            approval = Approval(**{name: value for name, value in gone.items() if name != "id"})
            withdrawal = Withdrawal(approval, actor, reason, at)
            connection.execute(model_withdrawals.insert().values(**_row(withdrawal)))
        return withdrawal

    def withdrawn(self, model: str, version: str | None = None) -> list[Withdrawal]:
        table = model_withdrawals.c
        query = sa.select(model_withdrawals).where(table.model == model).order_by(table.id.desc())
        if version is not None:
            query = query.where(table.version == version)
        return [_withdrawal(row) for row in self._rows(query)]


def _row(withdrawal: Withdrawal) -> dict[str, Any]:
    row = asdict(withdrawal.approval)
    row |= {"approval_reason": row.pop("reason"), "approved_at": row.pop("at")}
    return row | {"actor": withdrawal.actor, "reason": withdrawal.reason, "at": withdrawal.at}


def _withdrawal(row: dict[str, Any]) -> Withdrawal:
    what = [row[name] for name in ("model", "version", "digest", "approver", "approval_reason", "approved_at")]
    return Withdrawal(Approval(*what), row["actor"], row["reason"], row["at"])


class CatalogWaivers(_Table):
    """Waivers of gates, one row each."""

    def add(self, waiver: Waiver) -> None:
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(model_waivers.insert().values(**asdict(waiver)))

    def of(self, model: str, version: str | None = None) -> list[Waiver]:
        columns = [column for column in model_waivers.c if column.name != "id"]
        query = sa.select(*columns).where(model_waivers.c.model == model).order_by(model_waivers.c.id.desc())
        if version is not None:
            query = query.where(model_waivers.c.version == version)
        return [Waiver(**row) for row in self._rows(query)]

    def end(self, model: str, version: str, gate: str, *, actor: str, at: int) -> Waiver:
        table = model_waivers.c
        theirs = (table.model == model, table.version == version, table.gate == gate, table.ended_at.is_(None))
        change = model_waivers.update().where(*theirs).values(ended_at=at, ended_by=actor).returning(*table)
        with catalog_errors(self._name), self._engine.begin() as connection:
            ended = sorted(connection.execute(change).mappings(), key=lambda row: row["id"])
        if not ended:
            raise NotFound(
                f"There is no waiver of {gate!r} for {model}:{version} to end.",
                fix=f"`mainspring models waivers {model}` lists them.",
            )
        return Waiver(**{name: value for name, value in ended[-1].items() if name != "id"})


class CatalogDeletions(_Table):
    """Deletion marks, one row each."""

    def mark(self, deletion: Deletion) -> None:
        self._insert(model_deletions, deletion, _marked_already)

    def unmark(self, model: str, version: str) -> bool:
        return self._delete(model_deletions, *_of(model, version), model_deletions.c.claimed.is_(False))

    def claim(self, model: str, version: str) -> bool:
        return self._claim(model, version, claimed=True)

    def settle(self, model: str, version: str, *, carried_out: bool) -> None:
        if carried_out:
            self._delete(model_deletions, *_of(model, version))
        else:
            self._claim(model, version, claimed=False)

    def _claim(self, model: str, version: str, *, claimed: bool) -> bool:
        change = model_deletions.update().where(*_of(model, version)).values(claimed=claimed)
        with catalog_errors(self._name), self._engine.begin() as connection:
            return connection.execute(change).rowcount > 0

    def all(self) -> list[Deletion]:
        order = (model_deletions.c.at, model_deletions.c.model, model_deletions.c.version)
        return [Deletion(**row) for row in self._rows(sa.select(model_deletions).order_by(*order))]


def _of(model: str, version: str) -> tuple[sa.ColumnElement[bool], ...]:
    return model_deletions.c.model == model, model_deletions.c.version == version


class CatalogTrustedKeys(_Table):
    """Trusted keys, one row each."""

    def add(self, key: TrustedKey) -> None:
        self._insert(trusted_keys, key, _trusted_already)

    def remove(self, name: str) -> bool:
        return self._delete(trusted_keys, trusted_keys.c.name == name)

    def all(self) -> list[TrustedKey]:
        return [TrustedKey(**row) for row in self._rows(sa.select(trusted_keys).order_by(trusted_keys.c.name))]


def _approved_already(approval: Approval) -> Conflict:
    return Conflict(
        f"{approval.approver} has already approved {approval.model}:{approval.version}.",
        fix="if more approvals are needed, let somebody else approve it.",
    )


def _not_approved(model: str, version: str, approver: str) -> NotFound:
    return NotFound(
        f"There is no approval of {model}:{version} by {approver} to withdraw.",
        fix=f"`mainspring models show {model}:{version}` lists the valid approvals.",
    )


def _marked_already(deletion: Deletion) -> Conflict:
    return Conflict(
        f"The version {deletion.model}:{deletion.version} is already marked for deletion.",
        fix=f"`mainspring models restore {deletion.model}:{deletion.version}` removes the mark.",
    )


def _trusted_already(key: TrustedKey) -> Conflict:
    return Conflict(
        f"The key {key.public.hex()[:16]}… or the name {key.name!r} is already trusted.",
        fix="`mainspring models trust` lists the keys; --forget NAME removes one.",
    )
