"""Run search by SQL on MLflow's own database; stays fast with a hundred thousand runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors
from mainspring.registry.adapters.memory_search import ranked
from mainspring.registry.adapters.mlflow_asking import Asking, models_of
from mainspring.registry.adapters.mlflow_conditions import Conditions
from mainspring.registry.adapters.mlflow_history import read_history, read_lined, read_lines
from mainspring.registry.adapters.mlflow_names import read_kinds, read_names, read_names_of
from mainspring.registry.adapters.mlflow_rows import read_rows
from mainspring.registry.adapters.mlflow_tables import add_indexes, is_there, open_tables
from mainspring.registry.run_matching import place_in, token
from mainspring.registry.searching import Axis, Column, History, Kind, RunPage, RunQuery, RunRow, UnknownRun


class MlflowRunSearch:
    """Runs of MLflow's SQLAlchemy store on SQLite or Postgres; MLflow itself is not imported.

    The first query creates Mainspring's indexes, which takes a while on a large store.

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

    def search(self, query: RunQuery, columns: Sequence[Column] | None = (), *, count_to: int = 0) -> RunPage:
        after = place_in(query)
        with self._connected() as connection:
            if connection is None:
                return RunPage((), count=0 if count_to else None)
            asking = Asking(self._say, self._engine, connection, query)
            places = asking.places(after)
            shown = places[: query.limit]
            found = read_rows(connection, [place[2] for place in shown], asking.models, columns)
            more = token(query, shown[-1]) if len(places) > len(shown) else ""
            every = min(len(shown), count_to) if after is None and not more else None
            count = (asking.count(count_to) if every is None else every) if count_to else None
            return RunPage(tuple(found[place[2]] for place in shown if place[2] in found), more, count)

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        with self._connected() as connection:
            return 0 if connection is None else Asking(self._say, self._engine, connection, query).count(at_most)

    def get(self, run_ids: Sequence[str]) -> list[RunRow]:
        found = self._rows(run_ids, None)
        for run_id in run_ids:
            if run_id not in found:
                raise UnknownRun(run_id)
        return [found[run_id] for run_id in run_ids]

    def rows(self, run_ids: Sequence[str], columns: Sequence[Column]) -> list[RunRow]:
        found = self._rows(run_ids, columns)
        return [found[run_id] for run_id in run_ids if run_id in found]

    def _rows(self, run_ids: Sequence[str], columns: Sequence[Column] | None) -> Mapping[str, RunRow]:
        with self._connected() as connection:
            if connection is None or not run_ids:
                return {}
            return read_rows(connection, run_ids, models_of(connection), columns)

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        with self._connected() as connection:
            if connection is None:
                return []
            every = read_names(connection, kind) if of is None else read_names_of(connection, kind, of)
            return ranked(every, text, limit)

    def kinds(self, name: str) -> list[Kind]:
        with self._connected() as connection:
            return [] if connection is None else read_kinds(connection, name)

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        with self._connected() as connection:
            if connection is None or not run_ids:
                return History(metric, axis, 0, 1, {})
            return read_history(connection, run_ids, metric, points, axis)

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        with self._connected() as connection:
            return read_lines(connection, run_ids, metric, points) if connection is not None and run_ids else {}

    def lined(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[str]:
        with self._connected() as connection:
            if connection is None or not run_ids or not metrics:
                return []
            return read_lined(connection, run_ids, metrics)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection | None]:
        """Yield a connection, or None where the store does not exist yet."""
        with catalog_errors(self._engine.url.render_as_string(), "store of runs"):
            with self._lock:
                if not self._ready and is_there(self._engine):
                    add_indexes(self._engine)
                    self._ready = True
            if not self._ready:
                yield None
                return
            with self._engine.connect() as connection:
                yield connection
