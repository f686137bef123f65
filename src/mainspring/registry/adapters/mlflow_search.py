"""Run search by SQL on MLflow's own database; stays fast with a hundred thousand runs.

Rows, names (there may be tens of thousands) and metric histories are read limited to what was asked for; the database
downsamples the histories.
"""

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
from mainspring.registry.adapters.mlflow_tables import add_indexes, is_there, metrics, open_tables, runs
from mainspring.registry.run_histories import FARTHEST, LARGEST, check_points, spread_over
from mainspring.registry.run_matching import place_in, token
from mainspring.registry.searching import Axis, Bucket, Column, History, Kind, RunPage, RunQuery, RunRow, UnknownRun

_Values = dict[str, dict[str, Any]]  # by run and name
# Queries for a value that changes with each write to the database; SQLite's is comparable only within a connection.
_VERSION = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT CAST(pg_current_snapshot() AS text)"}


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
            found = _read_rows(connection, [place[2] for place in shown], asking.models, columns)
            more = token(query, shown[-1]) if len(places) > len(shown) else ""
            every = min(len(shown), count_to) if after is None and not more else None
            count = (asking.count(count_to) if every is None else every) if count_to else None
            return RunPage(tuple(found[place[2]] for place in shown if place[2] in found), more, count)

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        with self._connected() as connection:
            return 0 if connection is None else Asking(self._say, self._engine, connection, query).count(at_most)

    def children(self, run_ids: Sequence[str], *, at_most: int = 1000) -> Mapping[str, int]:
        with self._connected() as connection:
            if connection is None or not run_ids:
                return {}
            wanted = self._say.children(at_most)
            counts = {run_id: connection.execute(wanted, {"parent": run_id}).scalar_one() for run_id in run_ids}
            return {run_id: count for run_id, count in counts.items() if count}

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
            return _read_rows(connection, run_ids, models_of(connection), columns)

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        with self._connected() as connection:
            if connection is None:
                return []
            every = _read_names(connection, kind) if of is None else _read_names_of(connection, kind, of)
            return ranked(every, text, limit)

    def kinds(self, name: str) -> list[Kind]:
        with self._connected() as connection:
            return [] if connection is None else _read_kinds(connection, name)

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        with self._connected() as connection:
            if connection is None or not run_ids:
                return History(metric, axis, 0, 1, {})
            return _read_history(connection, run_ids, metric, points, axis)

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        with self._connected() as connection:
            return _read_lines(connection, run_ids, metric, points) if connection is not None and run_ids else {}

    def lined(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[str]:
        with self._connected() as connection:
            if connection is None or not run_ids or not metrics:
                return []
            return _read_lined(connection, run_ids, metrics)

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


def _read_rows(
    connection: sa.Connection, run_ids: Sequence[str], models: Mapping[int, str], columns: Sequence[Column] | None
) -> dict[str, RunRow]:
    """Return run id -> row for the runs that exist, with their values in `columns`; None means all columns."""
    if not run_ids:
        return {}
    known = (runs.c.lifecycle_stage == "active", runs.c.experiment_id.in_(list(models)))
    there_are = connection.execute(sa.select(runs).where(runs.c.run_uuid.in_(run_ids), *known)).all()
    ids = [run.run_uuid for run in there_are]
    has = {kind: _values(connection, kind, ids, columns) for kind in TABLES}
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


def _values(connection: sa.Connection, kind: Kind, ids: Sequence[str], columns: Sequence[Column] | None) -> _Values:
    found: _Values = {run_id: {} for run_id in ids}
    names = None if columns is None else [column.name for column in columns if column.kind is kind]
    if names == [] or not ids:
        return found
    table = TABLES[kind]
    value: Any = table.c.value
    if kind is Kind.METRIC:
        value = sa.case((there(table), table.c.value), else_=None)
    wanted = sa.select(table.c.run_uuid, table.c.key, value)
    if names is None:
        wanted = wanted.where(table.c.run_uuid.in_(ids))
    else:
        # As pairs: with two separate lists SQLite uses an index on the names alone, and reads every run that has them.
        pairs = [(name, run_id) for name in names for run_id in ids]
        wanted = wanted.where(sa.tuple_(table.c.key, table.c.run_uuid).in_(pairs))
    nothing = math.nan if kind is Kind.METRIC else None
    for run_id, name, each in connection.execute(wanted).all():
        told = nothing if each is None else each
        if told is not None:
            found[run_id][name] = told
    return found


def _read_names(connection: sa.Connection, kind: Kind) -> Sequence[str]:
    """Return every name in use. The list is cached with the connection until the database changes."""
    version = connection.scalar(sa.text(_VERSION[connection.dialect.name]))
    kept = connection.info.get(kind)
    if kept is None or kept[0] != version:
        kept = connection.info[kind] = (version, _walked(connection, kind))
    names: Sequence[str] = kept[1]
    return names


def _walked(connection: sa.Connection, kind: Kind) -> Sequence[str]:
    """Return the names by one index look-up each, however many runs have them: DISTINCT would read every row."""
    key = TABLES[kind].c.key
    first = sa.select(sa.func.min(key).label("key")).cte("names", recursive=True)
    another = sa.select(sa.func.min(key)).where(key > first.c.key).scalar_subquery()
    every = first.union_all(sa.select(another).where(first.c.key.is_not(None)))
    return connection.scalars(sa.select(every.c.key).where(every.c.key.is_not(None))).all()


def _read_names_of(connection: sa.Connection, kind: Kind, run_ids: Sequence[str]) -> Sequence[str]:
    """Return every name that at least one of these runs has."""
    table = TABLES[kind]
    return connection.scalars(sa.select(table.c.key).where(table.c.run_uuid.in_(run_ids)).distinct()).all()


def _read_kinds(connection: sa.Connection, name: str) -> list[Kind]:
    """Return the kinds (metric, parameter, tag) of which a name exists."""
    some = {kind: sa.select(1).select_from(table).where(table.c.key == name).exists() for kind, table in TABLES.items()}
    found = connection.execute(sa.select(*some.values())).one()
    return [kind for kind, is_one in zip(some, found, strict=True) if is_one]


def _read_history(connection: sa.Connection, run_ids: Sequence[str], metric: str, points: int, axis: Axis) -> History:
    """Return a metric's history in buckets; see `RunSearch.history`."""
    check_points(points)
    place, unit = (metrics.c.step, 1) if axis is Axis.STEP else (metrics.c.timestamp, MILLISECOND)
    of_these = (metrics.c.run_uuid.in_(run_ids), metrics.c.key == metric)
    low, high = connection.execute(sa.select(sa.func.min(place), sa.func.max(place)).where(*of_these)).one()
    if low is None:
        return History(metric, axis, 0, 1, {})
    first, width = spread_over(low * unit, high * unit, points, axis)
    bucket = _bucket_of(place, first // unit, width // unit, high - low).label("bucket")
    known = sa.case((there(metrics), metrics.c.value), else_=None)
    # MLflow stores infinities as the largest floats, whose sum overflows.
    summable = sa.case((sa.func.abs(known) < LARGEST, known), else_=None)
    wanted = (
        sa.select(
            metrics.c.run_uuid,
            bucket,
            sa.func.min(known),
            sa.func.max(known),
            sa.func.sum(summable),
            sa.func.count(summable),
            sa.func.count(known),
            sa.func.count(),
        )
        .where(*of_these, place.between(low, high))  # excludes values logged since the range was read
        .group_by(metrics.c.run_uuid, bucket)
        .order_by(metrics.c.run_uuid, bucket)
    )
    found: dict[str, list[Bucket]] = {}
    for run_id, at, low, high, total, summed, count, every in connection.execute(wanted):
        mean = total / summed if summed else high
        told = Bucket(int(at), _or_nan(low), _or_nan(high), _or_nan(mean), count, every - count)
        found.setdefault(run_id, []).append(told)
    return History(metric, axis, first, width, {run_id: tuple(each) for run_id, each in found.items()})


def _bucket_of(place: Any, first: int, width: int, reach: int) -> Any:
    """Return the bucket index of a position, computed on halves where the range exceeds the database's integers."""
    if width > reach:
        return sa.literal(0)
    half = reach > FARTHEST
    halves = place.op(">>", return_type=sa.BigInteger())(sa.literal_column("1")) if half else place
    return (halves - (first >> half)) // (width >> half)


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _read_lines(
    connection: sa.Connection, run_ids: Sequence[str], metric: str, points: int
) -> Mapping[str, tuple[float | None, ...]]:
    """Return sparkline values; see `RunSearch.lines`. Each point is one look-up in MLflow's index of run, name and
    step.
    """
    check_points(points)
    reach = _reach(run_ids, metric)
    first = sa.select(sa.literal(0, sa.BigInteger).label("place")).cte("places", recursive=True)
    places = first.union_all(sa.select(first.c.place + 1).where(first.c.place < points - 1))
    pieces = max(1, points - 1)
    its = metrics.alias("its")
    # Range times position, in two parts: the product may overflow the database's integers.
    at = reach.c.low + reach.c.far // pieces * places.c.place + reach.c.far % pieces * places.c.place // pieces
    value = (
        sa.select(sa.case((there(its), its.c.value), else_=None))
        .where(its.c.run_uuid == reach.c.id, its.c.key == metric, its.c.step >= at)
        .order_by(its.c.step, its.c.timestamp, its.c.is_nan, its.c.value)
        .limit(1)
        .correlate(reach, places)
        .scalar_subquery()
    )
    wanted = (
        sa.select(reach.c.id, value)
        .select_from(reach.join(places, sa.true()))
        .where(reach.c.high > reach.c.low)
        .order_by(reach.c.id, places.c.place)
    )
    found: dict[str, list[float | None]] = {}
    for run_id, each in connection.execute(wanted):
        found.setdefault(run_id, []).append(each)
    return {run_id: tuple(values) for run_id, values in found.items()}


def _read_lined(connection: sa.Connection, run_ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the metrics with two or more steps; see `RunSearch.lined`."""
    each = [_ends(run_ids, name).subquery() for name in names]
    some = [sa.select(1).select_from(ends).where(ends.c.high > ends.c.low).exists() for ends in each]
    are = connection.execute(sa.select(*some)).one()
    return [name for name, is_one in zip(names, are, strict=True) if is_one]


def _reach(run_ids: Sequence[str], metric: str) -> sa.CTE:
    """Return each run's first and last step, and the distance between them, capped at the database's largest integer.

    MATERIALIZED keeps Postgres from computing it again for each point.
    """
    ends = _ends(run_ids, metric).subquery()
    apart = ends.c.high - ends.c.low
    far = sa.case((ends.c.high < 0, apart), (ends.c.low >= ends.c.high - FARTHEST, apart), else_=FARTHEST)
    return sa.select(ends, far.label("far")).cte("reach").prefix_with("MATERIALIZED")


def _ends(run_ids: Sequence[str], metric: str) -> sa.Select[Any]:
    of_run = (metrics.c.run_uuid == runs.c.run_uuid, metrics.c.key == metric)
    return sa.select(
        runs.c.run_uuid.label("id"),
        sa.select(sa.func.min(metrics.c.step)).where(*of_run).scalar_subquery().label("low"),
        sa.select(sa.func.max(metrics.c.step)).where(*of_run).scalar_subquery().label("high"),
    ).where(runs.c.run_uuid.in_(run_ids))
