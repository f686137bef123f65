"""Users, service accounts, groups and granted roles in the catalog."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata, upsert, writing
from mainspring.core.errors import Conflict, MainspringError, NotFound
from mainspring.core.ids import new_id
from mainspring.security.model import Account, AccountGroup, Binding, BoundName, Grant, Holder, Kind, Role
from mainspring.security.people import identity_name

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("email", sa.String(256), nullable=False),
    sa.Column("service", sa.String(128), unique=True),  # the name of a service account
    sa.Column("issuer", sa.String(512)),  # NULL without an identity at a provider
    sa.Column("subject", sa.String(256)),
    sa.Column("provider_groups", sa.Text, nullable=False),  # JSON
    sa.Column("created_at", sa.BigInteger, nullable=False),  # UTC epoch microseconds, like every instant
    sa.Column("disabled_at", sa.BigInteger),
    sa.Column("disabled_by", sa.Text),
    sa.UniqueConstraint("issuer", "subject"),
)

account_names = sa.Table(  # rows stay when their account is removed
    "account_names",
    metadata,
    sa.Column("name", sa.String(800), primary_key=True),
    sa.Column("account_id", sa.String(26), primary_key=True),
    sa.Column("bound_at", sa.BigInteger, nullable=False),
    sa.Column("bound_by", sa.String(256), nullable=False),
)

account_groups = sa.Table(
    "account_groups",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("provider_group", sa.String(512), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

account_group_members = sa.Table(
    "account_group_members",
    metadata,
    sa.Column("group_name", sa.String(128), primary_key=True),
    sa.Column("account_id", sa.String(26), primary_key=True),
)

directory_users = sa.Table(
    "directory_users",
    metadata,
    sa.Column("account_id", sa.String(26), primary_key=True),
    sa.Column("user_name", sa.String(256), nullable=False),
    sa.Column("folded", sa.String(1024), nullable=False, unique=True),  # the name without regard to case
    sa.Column("external_id", sa.String(256), nullable=False),
)

directory_groups = sa.Table(
    "directory_groups",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("folded", sa.String(1024), nullable=False, unique=True),
    sa.Column("external_id", sa.String(256), nullable=False),
)

directory_members = sa.Table(
    "directory_members",
    metadata,
    sa.Column("group_id", sa.String(26), primary_key=True),
    sa.Column("account_id", sa.String(26), primary_key=True),
)

role_grants = sa.Table(
    "role_grants",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("who", sa.String(128), primary_key=True),
    sa.Column("role", sa.String(32), primary_key=True),
    sa.Column("resource", sa.String(300), primary_key=True),
    sa.Column("granted_at", sa.BigInteger, nullable=False),
    sa.Column("granted_by", sa.String(256), nullable=False),
)

access_changes = sa.Table(  # one row, whose mark changes with each of the tables above
    "access_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("mark", sa.String(26), nullable=False),
)

_GROUP = "group"


class CatalogAccounts:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, account: Account) -> None:
        taken = Conflict(f"The {account.kind} account {account.name!r} already exists.")
        self._insert(taken, *account_rows(self._engine, account))

    def describe(self, account_id: str, name: str, email: str, provider_groups: Sequence[str]) -> None:
        self._update(account_id, name=name, email=email, provider_groups=json.dumps(provider_groups))

    def set_disabled(self, account_id: str, at: int | None, by: str = "") -> None:
        self._update(account_id, disabled_at=at, disabled_by=by or None)

    def _update(self, account_id: str, **columns: Any) -> None:
        self._change(accounts.update().where(accounts.c.id == account_id).values(columns), _no_account(account_id))

    def remove(self, account_id: str) -> None:
        of_it = account_group_members.delete().where(account_group_members.c.account_id == account_id)
        granted = role_grants.delete().where(role_grants.c.kind != _GROUP, role_grants.c.who == account_id)
        listed = directory_users.delete().where(directory_users.c.account_id == account_id)
        joined = directory_members.delete().where(directory_members.c.account_id == account_id)
        gone = accounts.delete().where(accounts.c.id == account_id)
        self._change(gone, _no_account(account_id), of_it, granted, listed, joined)

    def find(self, account_id: str) -> Account | None:
        return self._one(accounts.c.id == account_id)

    def of_subject(self, issuer: str, subject: str) -> Account | None:
        return self._one(accounts.c.issuer == issuer, accounts.c.subject == subject)

    def _one(self, *conditions: Any) -> Account | None:
        with catalog_errors(self._name), self._engine.connect() as connection:
            row = connection.execute(sa.select(accounts).where(*conditions)).one_or_none()
        return None if row is None else _account(row)

    def all(self) -> list[Account]:
        query = sa.select(accounts).order_by(accounts.c.created_at, accounts.c.id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [_account(row) for row in connection.execute(query)]

    def holder(self, account_id: str) -> Holder | None:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return read_holders(connection, account_id).get(account_id)

    def service(self, name: str) -> Holder | None:
        query = sa.select(accounts.c.id).where(accounts.c.service == name)
        with catalog_errors(self._name), self._engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
            return None if found is None else read_holders(connection, found).get(found)

    def services(self) -> dict[str, Holder]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            found = read_holders(connection)
        return {each.name: each for each in found.values() if each.kind is Kind.SERVICE}

    def bind(self, bound: BoundName) -> None:
        insert = upsert(self._engine, account_names, ("name", "account_id"), ("bound_at", "bound_by"))
        with self._checking() as connection:
            _expect(connection, accounts.c.id == bound.account_id, _no_account(bound.account_id))
            connection.execute(insert, _bound_row(bound.name, bound.account_id, bound.at, bound.by))

    def names(self) -> list[BoundName]:
        columns = account_names.c
        query = sa.select(account_names).order_by(columns.name, columns.account_id)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                BoundName(row.name, row.account_id, row.bound_at, row.bound_by) for row in connection.execute(query)
            ]

    def groups(self) -> list[AccountGroup]:
        members: dict[str, set[str]] = defaultdict(set)
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(sa.select(account_groups).order_by(account_groups.c.name)).all()
            for group, account in connection.execute(sa.select(account_group_members)):
                members[group].add(account)
        return [
            AccountGroup(row.name, row.provider_group, row.created_at, frozenset(members[row.name])) for row in rows
        ]

    def add_group(self, group: AccountGroup) -> None:
        row = {"name": group.name, "provider_group": group.provider_group, "created_at": group.created_at}
        self._insert(Conflict(f"The group {group.name!r} already exists."), account_groups.insert().values(row))

    def remove_group(self, name: str) -> None:
        of_it = account_group_members.delete().where(account_group_members.c.group_name == name)
        granted = role_grants.delete().where(role_grants.c.kind == _GROUP, role_grants.c.who == name)
        self._change(account_groups.delete().where(account_groups.c.name == name), _no_group(name), of_it, granted)

    def add_member(self, group: str, account_id: str) -> None:
        insert = upsert(self._engine, account_group_members, ("group_name", "account_id"), ("account_id",))
        with self._checking() as connection:
            _expect(connection, account_groups.c.name == group, _no_group(group))
            _expect(connection, accounts.c.id == account_id, _no_account(account_id))
            connection.execute(insert, {"group_name": group, "account_id": account_id})
            self._mark(connection)

    def remove_member(self, group: str, account_id: str) -> None:
        columns = account_group_members.c
        gone = account_group_members.delete().where(columns.group_name == group, columns.account_id == account_id)
        missing = NotFound(f"{account_id} is not a member of the group {group!r}.", fix="run `mainspring groups list`.")
        self._change(gone, missing)

    def grants(self) -> list[Grant]:
        columns = role_grants.c
        query = sa.select(role_grants).order_by(columns.kind, columns.who, columns.role, columns.resource)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                Grant(row.kind, row.who, Role(row.role), row.resource, row.granted_at, row.granted_by)
                for row in connection.execute(query)
            ]

    def grant(self, grant: Grant) -> None:
        row = {
            "kind": grant.kind,
            "who": grant.who,
            "role": grant.role,
            "resource": grant.resource,
            "granted_at": grant.granted_at,
            "granted_by": grant.granted_by,
        }
        with self._checking() as connection:
            if grant.kind == _GROUP:
                _expect(connection, account_groups.c.name == grant.who, _no_group(grant.who))
            else:
                _expect(connection, accounts.c.id == grant.who, _no_account(grant.who), accounts.c.kind == grant.kind)
            found = connection.execute(sa.select(role_grants).where(*_same(grant))).one_or_none()
            if found is None:
                connection.execute(role_grants.insert().values(row))
                self._mark(connection)

    def revoke(self, grant: Grant) -> None:
        missing = NotFound(
            f"The role {grant.role} on {grant.resource} is not granted to {grant.kind} {grant.who}.",
            fix="run `mainspring roles list`.",
        )
        self._change(role_grants.delete().where(*_same(grant)), missing)

    @contextmanager
    def _checking(self) -> Iterator[sa.Connection]:
        """Context of a transaction in which what `_expect` finds stays: on SQLite, which locks no rows, nobody else
        writes.
        """
        with catalog_errors(self._name), writing(self._engine) as connection:
            yield connection

    def _insert(self, taken: MainspringError, *statements: Any) -> None:
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    for statement in statements:
                        connection.execute(statement)
                    self._mark(connection)
            except sa.exc.IntegrityError as error:
                raise taken from error

    def _change(self, statement: Any, missing: MainspringError, *more: Any) -> None:
        """Execute statements, of which the first must change a row."""
        with catalog_errors(self._name), self._engine.begin() as connection:
            if not connection.execute(statement).rowcount:
                raise missing
            for each in more:
                connection.execute(each)
            self._mark(connection)

    def _mark(self, connection: sa.Connection) -> None:
        mark_changed(self._engine, connection)


def mark_changed(engine: sa.Engine, connection: sa.Connection) -> None:
    """Change the mark of accounts, groups and grants."""
    connection.execute(upsert(engine, access_changes, ("id",), ("mark",)), {"id": 1, "mark": new_id()})


def account_rows(engine: sa.Engine, account: Account) -> list[Any]:
    """Return the statements that insert an account, with its identity among the bound names."""
    row = {
        "id": account.id,
        "kind": account.kind,
        "name": account.name,
        "email": account.email,
        "service": account.name if account.kind is Kind.SERVICE else None,
        "issuer": account.issuer or None,
        "subject": account.subject or None,
        "provider_groups": json.dumps(account.provider_groups),
        "created_at": account.created_at,
        "disabled_at": account.disabled_at,
        "disabled_by": account.disabled_by or None,
    }
    if not account.issuer:
        return [accounts.insert().values(row)]
    bound = upsert(engine, account_names, ("name", "account_id"), ("bound_at", "bound_by"))
    name = identity_name(account.issuer, account.subject)
    return [
        accounts.insert().values(row),
        bound.values(_bound_row(name, account.id, account.created_at, account.issuer)),
    ]


def read_holders(connection: sa.Connection, account_id: str | None = None) -> dict[str, Holder]:
    """Return accounts with their groups and roles by id: all, or the one with an id, if it exists."""
    query, members = sa.select(accounts), sa.select(account_group_members)
    if account_id is not None:
        query = query.where(accounts.c.id == account_id)
        members = members.where(account_group_members.c.account_id == account_id)
    rows = connection.execute(query).all()
    if not rows:
        return {}
    groups: dict[str, set[str]] = defaultdict(set)
    for group, account in connection.execute(members):
        groups[account].add(group)
    mapped: dict[str, set[str]] = defaultdict(set)
    for name, provider_group in connection.execute(sa.select(account_groups.c.name, account_groups.c.provider_group)):
        mapped[provider_group].add(name)
    listed: dict[str, set[str]] = defaultdict(set)  # groups of the directory
    joined = sa.select(directory_members.c.account_id, directory_groups.c.name).where(
        directory_groups.c.id == directory_members.c.group_id
    )
    if account_id is not None:
        joined = joined.where(directory_members.c.account_id == account_id)
    for account, name in connection.execute(joined):
        listed[account].add(name)
    granted: dict[tuple[bool, str], set[Binding]] = defaultdict(set)
    for row in connection.execute(sa.select(role_grants)):
        granted[row.kind == _GROUP, row.who].add(Binding(Role(row.role), row.resource))
    found = {}
    for row in rows:
        provided = listed[row.id].union(json.loads(row.provider_groups))
        mine = groups[row.id].union(*(mapped[each] for each in provided if each))
        roles = granted[False, row.id].union(*(granted[True, group] for group in mine))
        found[row.id] = Holder(row.id, Kind(row.kind), row.name, frozenset(mine), frozenset(roles), row.disabled_at)
    return found


def _bound_row(name: str, account_id: str, at: int, by: str) -> dict[str, Any]:
    return {"name": name, "account_id": account_id, "bound_at": at, "bound_by": by[:256]}


def _same(grant: Grant) -> tuple[Any, ...]:
    return tuple(role_grants.c[name] == getattr(grant, name) for name in ("kind", "who", "role", "resource"))


def _expect(connection: sa.Connection, condition: Any, missing: MainspringError, *more: Any) -> None:
    """Raise if there is no such row, and keep it from being removed until the transaction of `_checking` ends."""
    if connection.execute(sa.select(sa.literal(1)).where(condition, *more).with_for_update()).one_or_none() is None:
        raise missing


def _no_account(account_id: str) -> NotFound:
    return NotFound(f"There is no account {account_id}.", fix="run `mainspring users list`.")


def _no_group(name: str) -> NotFound:
    return NotFound(f"There is no group {name!r}.", fix="run `mainspring groups list`.")


def _account(row: Any) -> Account:
    return Account(
        id=row.id,
        kind=Kind(row.kind),
        name=row.name,
        email=row.email,
        issuer=row.issuer or "",
        subject=row.subject or "",
        provider_groups=tuple(json.loads(row.provider_groups)),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_by=row.disabled_by or "",
    )
