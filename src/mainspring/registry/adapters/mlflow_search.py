"""Looking for runs in MLflow's own database by SQL: quick with a hundred thousand of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors
from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.memory_search import ranked
from mainspring.registry.adapters.mlflow_asking import Asking, models_of
from mainspring.registry.adapters.mlflow_conditions import TABLES, Conditions, there
from mainspring.registry.adapters.mlflow_history import read_history, read_lines
from mainspring.registry.adapters.mlflow_tables import add_indexes, is_there, open_tables, runs
from mainspring.registry.run_matching import place_in, token
from mainspring.registry.searching import Axis, Column, History, Kind, RunPage, RunQuery, RunRow, UnknownRun


class MlflowRunSearch:
    """Runs of MLflow's SQLAlchemy store on SQLite or Postgres; nothing of MLflow is imported.

    Our indexes are made with the first question, which on a large store takes a while once.

    Args:
        url: SQLAlchemy URL of the store.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_tables(url)
        self._say = Conditions(self._engine)
        self._lock = threading.Lock()
        self._ready = False

    def close(self) -> None:
        self._engine.dispose()

    def search(self, query: RunQuery, columns: Sequence[Column] = ()) -> RunPage:
        after = place_in(query)
        with self._connected() as connection:
            if connection is None:
                return RunPage(())
            asking = Asking(self._say, self._engine, connection, query)
            places = asking.places(after)
            shown = places[: query.limit]
            names = _by_kind(columns)
            found = self._rows(connection, [place[2] for place in shown], asking.models, names)
            more = token(query, shown[-1]) if len(places) > len(shown) else ""
            return RunPage(tuple(found[place[2]] for place in shown if place[2] in found), more)

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        with self._connected() as connection:
            if connection is None:
                return 0
            asking = Asking(self._say, self._engine, connection, query)
            some = asking.some().limit(at_most).subquery()
            return int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def get(self, run_ids: Sequence[str]) -> list[RunRow]:
        with self._connected() as connection:
            found: Mapping[str, RunRow] = {}
            if connection is not None and run_ids:
                found = self._rows(connection, run_ids, models_of(connection), None)
        for run_id in run_ids:
            if run_id not in found:
                raise UnknownRun(run_id)
        return [found[run_id] for run_id in run_ids]

    def names(self, kind: Kind, text: str = "", *, limit: int = 100) -> list[str]:
        with self._connected() as connection:
            if connection is None:
                return []
            # Each name is one step down the index, however many runs have it: DISTINCT would read them all.
            key = TABLES[kind].c.key
            first = sa.select(sa.func.min(key).label("key")).cte("names", recursive=True)
            another = sa.select(sa.func.min(key)).where(key > first.c.key).scalar_subquery()
            every = first.union_all(sa.select(another).where(first.c.key.is_not(None)))
            found = connection.scalars(sa.select(every.c.key).where(every.c.key.is_not(None)))
            return ranked(found, text, limit)

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        with self._connected() as connection:
            if connection is None or not run_ids:
                return History(metric, axis, 0, 1, {})
            return read_history(connection, run_ids, metric, points, axis)

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        with self._connected() as connection:
            return read_lines(connection, run_ids, metric, points) if connection is not None and run_ids else {}

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection | None]:
        """Give a connection; None where there is no store yet."""
        with catalog_errors(self._engine.url.render_as_string()):
            with self._lock:
                if not self._ready and is_there(self._engine):
                    add_indexes(self._engine)
                    self._ready = True
            if not self._ready:
                yield None
                return
            with self._engine.connect() as connection:
                yield connection

    def _rows(
        self,
        connection: sa.Connection,
        run_ids: Sequence[str],
        models: Mapping[int, str],
        names: Mapping[Kind, Sequence[str]] | None,
    ) -> dict[str, RunRow]:
        """Return runs by id, with what is named of each kind, or with everything."""
        if not run_ids:
            return {}
        known = (runs.c.lifecycle_stage == "active", runs.c.experiment_id.in_(list(models)))
        there_are = connection.execute(sa.select(runs).where(runs.c.run_uuid.in_(run_ids), *known)).all()
        has: dict[Kind, dict[str, dict[str, Any]]] = {kind: {run.run_uuid: {} for run in there_are} for kind in TABLES}
        for kind, table in TABLES.items():
            if names is not None and not names.get(kind):
                continue
            value: Any = table.c.value
            if kind is Kind.METRIC:
                value = sa.case((there(table), table.c.value), else_=None)
            wanted = sa.select(table.c.run_uuid, table.c.key, value)
            if names is None:
                wanted = wanted.where(table.c.run_uuid.in_(list(has[kind])))
            else:
                # By pairs: of two lists SQLite takes the names alone to an index, and reads every run that has them.
                pairs = [(name, run_id) for name in names[kind] for run_id in has[kind]]
                wanted = wanted.where(sa.tuple_(table.c.key, table.c.run_uuid).in_(pairs))
            for run_id, name, each in connection.execute(wanted):
                if each is not None or kind is Kind.METRIC:
                    has[kind][run_id][name] = math.nan if each is None else each
        return {
            run.run_uuid: RunRow(
                id=run.run_uuid,
                name=run.name or "",
                model=models[run.experiment_id],
                status=run.status or "",
                started_at=(run.start_time or 0) * MILLISECOND,
                ended_at=None if run.end_time is None else run.end_time * MILLISECOND,
                metrics=has[Kind.METRIC][run.run_uuid],
                params=has[Kind.PARAM][run.run_uuid],
                tags=has[Kind.TAG][run.run_uuid],
            )
            for run in there_are
        }


def _by_kind(columns: Sequence[Column]) -> dict[Kind, list[str]]:
    return {kind: [column.name for column in columns if column.kind is kind] for kind in TABLES}
