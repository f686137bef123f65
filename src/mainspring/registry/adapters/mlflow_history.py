"""Metric histories from MLflow's table of values, downsampled by the database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_conditions import there
from mainspring.registry.adapters.mlflow_tables import metrics, runs
from mainspring.registry.run_histories import FARTHEST, LARGEST, check_points, spread_over
from mainspring.registry.searching import Axis, Bucket, History


def read_history(connection: sa.Connection, run_ids: Sequence[str], metric: str, points: int, axis: Axis) -> History:
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


def read_lines(
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


def read_lined(connection: sa.Connection, run_ids: Sequence[str], names: Sequence[str]) -> list[str]:
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
