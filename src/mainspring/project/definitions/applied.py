"""Definitions stored by `apply`, for the difference that the next `apply` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, keep_writers_out, metadata

applied = sa.Table(
    "applied_definitions",
    metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One changed definition: `sign` is + (new), ~ (changed) or - (removed); `details` list the changes."""

    sign: str
    kind: str
    name: str
    details: tuple[str, ...] = ()


class Applied:
    """The applied definitions in the catalog."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def current(self) -> dict[tuple[str, str], str]:
        """Return (kind, name) -> content."""
        with catalog_errors(self._name), self._engine.connect() as connection:
            rows = connection.execute(sa.select(applied.c.kind, applied.c.name, applied.c.content))
            return {(row.kind, row.name): row.content for row in rows}

    def mark(self) -> str:
        """Return a text that changes with each applied change. Cheap compared with `current`."""
        query = sa.select(sa.func.count(), sa.func.max(applied.c.applied_at)).select_from(applied)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return " ".join(map(str, connection.execute(query).one()))

    def replace(self, contents: Mapping[tuple[str, str], str], at: int) -> None:
        """Store exactly these definitions, in one transaction."""
        rows = [
            {"kind": kind, "name": name, "content": content, "applied_at": at}
            for (kind, name), content in sorted(contents.items())
        ]
        with catalog_errors(self._name), self._engine.begin() as connection:
            keep_writers_out(connection, applied)
            connection.execute(applied.delete())
            if rows:
                connection.execute(applied.insert(), rows)


def difference(old: Mapping[tuple[str, str], str], new: Mapping[tuple[str, str], str]) -> list[Change]:
    """Return the changes from `old` to `new`, ordered by kind and name."""
    changes = []
    for kind, name in sorted({*old, *new}):
        before, after = old.get((kind, name)), new.get((kind, name))
        if before is None:
            changes.append(Change("+", kind, name))
        elif after is None:
            changes.append(Change("-", kind, name))
        elif before != after:
            changes.append(Change("~", kind, name, _lines(before, after)))
    return changes


def _lines(before: str, after: str) -> tuple[str, ...]:
    old, new = before.splitlines(), after.splitlines()
    gone = [f"- {line.strip().rstrip(',')}" for line in old if line not in new]
    come = [f"+ {line.strip().rstrip(',')}" for line in new if line not in old]
    return (*gone, *come)
