"""Users and groups of an organisation's directory, in the catalog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors
from mainspring.core.errors import Conflict, NotFound
from mainspring.security.adapters.accounts import (
    account_rows,
    accounts,
    directory_groups,
    directory_members,
    directory_users,
    mark_changed,
)
from mainspring.security.model import Account, DirectoryGroup, DirectoryUser

_USER = {"id": "account_id", "userName": "folded", "externalId": "external_id"}
_GROUP = {"id": "id", "displayName": "folded", "externalId": "external_id"}


class CatalogDirectory:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add_user(self, account: Account, user: DirectoryUser) -> None:
        with catalog_errors(self._name), self._engine.connect() as connection:
            known = connection.execute(sa.select(accounts.c.id).where(accounts.c.id == account.id)).one_or_none()
        made = [] if known is not None else account_rows(self._engine, account)
        self._write(f"user {user.user_name!r}", *made, directory_users.insert().values(_user_row(user)))

    def save_user(self, user: DirectoryUser) -> None:
        change = directory_users.update().where(directory_users.c.account_id == user.account_id)
        self._write(f"user {user.user_name!r}", change.values(_user_row(user)), must=user.account_id)

    def users(
        self, attribute: str = "", value: str = "", *, begin: int = 0, limit: int = 100
    ) -> tuple[int, list[DirectoryUser]]:
        count, rows = self._page(directory_users, _USER, attribute, value, begin, limit)
        return count, [DirectoryUser(row.account_id, row.user_name, row.external_id) for row in rows]

    def add_group(self, group: DirectoryGroup) -> None:
        self._write(f"group {group.name!r}", directory_groups.insert().values(_group_row(group)), *_joined(group))

    def save_group(self, group: DirectoryGroup) -> None:
        change = directory_groups.update().where(directory_groups.c.id == group.id).values(_group_row(group))
        gone = directory_members.delete().where(directory_members.c.group_id == group.id)
        self._write(f"group {group.name!r}", change, gone, *_joined(group), must=group.id)

    def remove_group(self, group_id: str) -> None:
        gone = directory_groups.delete().where(directory_groups.c.id == group_id)
        members = directory_members.delete().where(directory_members.c.group_id == group_id)
        self._write(f"group {group_id}", gone, members, must=group_id)

    def groups(
        self, attribute: str = "", value: str = "", *, begin: int = 0, limit: int = 100
    ) -> tuple[int, list[DirectoryGroup]]:
        count, rows = self._page(directory_groups, _GROUP, attribute, value, begin, limit)
        members: dict[str, set[str]] = defaultdict(set)
        query = sa.select(directory_members).where(directory_members.c.group_id.in_([row.id for row in rows]))
        with catalog_errors(self._name), self._engine.connect() as connection:
            for row in connection.execute(query):
                members[row.group_id].add(row.account_id)
        return count, [DirectoryGroup(row.id, row.name, row.external_id, frozenset(members[row.id])) for row in rows]

    def _page(
        self, table: sa.Table, columns: dict[str, str], attribute: str, value: str, begin: int, limit: int
    ) -> tuple[int, Sequence[Any]]:
        condition: Any = sa.true()
        if attribute:
            column = columns[attribute]
            condition = table.c[column] == (value.casefold() if column == "folded" else value)
        key = next(iter(table.primary_key))
        query = sa.select(table).where(condition).order_by(key).offset(begin).limit(limit)
        with catalog_errors(self._name), self._engine.connect() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one()
            return count, connection.execute(query).all() if limit else []

    def _write(self, what: str, *statements: Any, must: str = "") -> None:
        """Execute statements together; where `must` names something, the first has to change it."""
        with catalog_errors(self._name):
            try:
                with self._engine.begin() as connection:
                    found = connection.execute(statements[0])
                    if must and not found.rowcount:
                        raise NotFound(f"There is no {must} in the directory.")
                    for statement in statements[1:]:
                        connection.execute(statement)
                    mark_changed(self._engine, connection)
            except sa.exc.IntegrityError as error:
                raise Conflict(f"The {what} already exists.") from error


def _user_row(user: DirectoryUser) -> dict[str, Any]:
    folded = user.user_name.casefold()
    return {
        "account_id": user.account_id,
        "user_name": user.user_name,
        "folded": folded,
        "external_id": user.external_id,
    }


def _group_row(group: DirectoryGroup) -> dict[str, Any]:
    return {"id": group.id, "name": group.name, "folded": group.name.casefold(), "external_id": group.external_id}


def _joined(group: DirectoryGroup) -> list[Any]:
    rows = [{"group_id": group.id, "account_id": member} for member in sorted(group.members)]
    return [directory_members.insert().values(rows)] if rows else []
