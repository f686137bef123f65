"""What runs logged of a metric, out of MLflow's table of every value, made few by the database."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_conditions import there
from mainspring.registry.adapters.mlflow_tables import metrics
from mainspring.registry.run_matching import LARGEST, width_of
from mainspring.registry.searching import Axis, Bucket, History


def read_history(connection: sa.Connection, run_ids: Sequence[str], metric: str, points: int, axis: Axis) -> History:
    """Return the history; see `RunSearch.history`."""
    place: Any = metrics.c.step if axis is Axis.STEP else metrics.c.timestamp * MILLISECOND
    of_these = (metrics.c.run_uuid.in_(run_ids), metrics.c.key == metric)
    reach = connection.execute(sa.select(sa.func.min(place), sa.func.max(place)).where(*of_these)).one()
    if reach[0] is None:
        return History(metric, axis, 0, 1, {})
    first, width = int(reach[0]), width_of(int(reach[0]), int(reach[1]), points)
    bucket = ((place - first) // width).label("bucket")
    known = sa.case((there(metrics), metrics.c.value), else_=None)
    # Infinities are kept as the largest floats, whose sum is none.
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
        .where(*of_these)
        .group_by(metrics.c.run_uuid, bucket)
        .order_by(metrics.c.run_uuid, bucket)
    )
    found: dict[str, list[Bucket]] = {}
    for run_id, at, low, high, total, summed, count, every in connection.execute(wanted):
        low, high = (math.nan, math.nan) if low is None else (low, high)
        mean = total / summed if summed else high
        found.setdefault(run_id, []).append(Bucket(int(at), low, high, mean, count, every - count))
    return History(metric, axis, first, width, {run_id: tuple(each) for run_id, each in found.items()})
