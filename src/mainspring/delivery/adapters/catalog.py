"""Rollouts in the catalog, states that change by compare-and-set and looks that never do; and evaluations of gates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict, NotFound
from mainspring.delivery.model import Evaluation
from mainspring.delivery.rollout.model import Look, RolloutState, Status

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("endpoint", sa.String(128), nullable=False),
    sa.Column("live", sa.String(128), unique=True),  # the endpoint while the rollout is live: at most one is
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Index("rollouts_by_time", "created_at", "id"),
)
rollout_looks = sa.Table(
    "rollout_looks",
    metadata,
    sa.Column("rollout", sa.ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("look", sa.Text, nullable=False),
)


gate_evaluations = sa.Table(
    "gate_evaluations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("evaluation", sa.Text, nullable=False),
    sa.Index("gate_evaluations_by_version", "model", "version", "id"),
)


class CatalogEvaluations:
    """`Evaluations`, one row each."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def add(self, evaluation: Evaluation) -> None:
        row = {"model": evaluation.model, "version": evaluation.version}
        with catalog_errors(self._name), self._engine.begin() as connection:
            document = msgspec.json.encode(evaluation).decode()
            connection.execute(gate_evaluations.insert().values(**row, evaluation=document))

    def newest(self, model: str, version: str | None = None, count: int = 1) -> list[Evaluation]:
        table = gate_evaluations.c
        query = sa.select(table.evaluation).where(table.model == model).order_by(table.id.desc()).limit(count)
        if version is not None:
            query = query.where(table.version == version)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Evaluation) for text in connection.scalars(query)]


class CatalogRollouts:
    """`RolloutStore`, shared by every process of a project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)

    def create(self, state: RolloutState, look: Look) -> RolloutState:
        made = msgspec.structs.replace(state, revision=1)
        try:
            with self._writing() as connection:
                connection.execute(rollouts.insert().values(id=made.id, created_at=made.created_at, **_row(made)))
                _append(connection, [look])
        except sa.exc.IntegrityError:
            there = [other for other in self.live() if other.endpoint == state.endpoint]
            if not there:  # ended meanwhile
                return self.create(state, look)
            raise Conflict(
                f"Endpoint {state.endpoint!r} has a live rollout already: version {there[0].candidate}, "
                f"{there[0].status}, begun by {there[0].actor}.",
                fix=f"wait for its end, or run `mainspring rollout stop {state.endpoint}`.",
            ) from None
        return made

    def replace(self, state: RolloutState, looks: Sequence[Look] = ()) -> RolloutState:
        made = msgspec.structs.replace(state, revision=state.revision + 1)
        mine = (rollouts.c.id == state.id, rollouts.c.revision == state.revision)
        with self._writing() as connection:
            if not connection.execute(rollouts.update().where(*mine).values(**_row(made))).rowcount:
                revision = connection.scalar(sa.select(rollouts.c.revision).where(rollouts.c.id == state.id))
                if revision is None:
                    raise NotFound(f"There is no rollout {state.id!r}.", fix="`mainspring rollout list` lists them.")
                raise Conflict(
                    f"The rollout {state.id} of {state.endpoint!r} has changed: revision {revision}, not "
                    f"{state.revision}.",
                    fix="run the command again.",
                )
            _append(connection, looks)
        return made

    def get(self, ids: Sequence[str]) -> list[RolloutState | None]:
        found = {state.id: state for state in self._read(sa.select(rollouts).where(rollouts.c.id.in_(ids)))}
        return [found.get(id) for id in ids]

    def expect_live(self, id: str, within: object = None) -> None:
        query = sa.select(rollouts.c.live).where(rollouts.c.id == id).with_for_update()
        given = within if isinstance(within, sa.Connection) else None
        with catalog_errors(self._name), self._engine.connect() if given is None else nullcontext(given) as connection:
            if connection.scalar(query) is None:
                raise NotFound(
                    f"The rollout {id} is not live any more.", fix="`mainspring rollout list` tells how it ended."
                )

    def live(self) -> list[RolloutState]:
        return self._read(sa.select(rollouts).where(rollouts.c.live.is_not(None)).order_by(rollouts.c.endpoint))

    def find(
        self,
        *,
        endpoints: Collection[str] = (),
        statuses: Collection[Status] = (),
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[RolloutState]:
        query = sa.select(rollouts).order_by(rollouts.c.created_at.desc(), rollouts.c.id.desc()).limit(limit)
        if endpoints:
            query = query.where(rollouts.c.endpoint.in_(endpoints))
        if statuses:
            query = query.where(rollouts.c.status.in_([each.value for each in statuses]))
        if before is not None:
            query = query.where(sa.tuple_(rollouts.c.created_at, rollouts.c.id) < before)
        return self._read(query)

    def looks(self, rollout: str, *, after: int = 0, limit: int = 1_000) -> list[Look]:
        query = (
            sa.select(rollout_looks.c.look)
            .where(rollout_looks.c.rollout == rollout, rollout_looks.c.number > after)
            .order_by(rollout_looks.c.number)
            .limit(limit)
        )
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Look) for text in connection.scalars(query)]

    def _read(self, query: sa.Select[Any]) -> list[RolloutState]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(row.state, type=RolloutState) for row in connection.execute(query)]

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


def _row(state: RolloutState) -> dict[str, Any]:
    return {
        "endpoint": state.endpoint,
        "live": state.endpoint if state.live else None,
        "status": state.status.value,
        "revision": state.revision,
        "state": msgspec.json.encode(state).decode(),
    }


def _append(connection: sa.Connection, looks: Sequence[Look]) -> None:
    if looks:
        rows = [
            {"rollout": each.rollout, "number": each.number, "look": msgspec.json.encode(each).decode()}
            for each in looks
        ]
        connection.execute(rollout_looks.insert(), rows)
