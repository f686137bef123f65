"""The weekly classifier of an endpoint's rows: at most one week in a pass, stored once it is judged.

Its time is bounded by its rows: a sample of the week, and one of the four weeks before it. A pass that is killed stores
nothing, and the next one begins the same week again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

from mainspring.core.time import HOUR
from mainspring.ledger.model import Selection
from mainspring.monitoring.channels.separation import Separation, coded, judge, separation
from mainspring.monitoring.channels.windows import WEEK
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.model import WEEKS, Judged
from mainspring.monitoring.served import Served, served
from mainspring.project import Project

ROWS, BEFORE = 1_500, 3_000  # of the two samples
_BEFORE_US = 4 * WEEK
_GRACE_US = HOUR  # until the predictions of a week are in the store
_LOOKED_AT = 26  # weeks
_FIRST = 8  # weeks of an older log that are judged


@dataclass(slots=True)
class KeptSeparations:
    """Separations of an endpoint, kept between passes."""

    until: int = -1  # the first week that is not over; all before it are known
    weeks: list[Separation] = field(default_factory=list)


def separations_judged(
    project: Project, endpoint: str, now: int, kept: KeptSeparations, incidents: Sequence[tuple[int, int]] = ()
) -> list[Judged]:
    """Return the judgement of the weeks, after measuring the first that is not measured yet.

    Without scikit-learn, and for an endpoint that serves nothing or tensors, no week is judged.

    Args:
        now: By the domain's clock.
        kept: Of the same endpoint, updated.
        incidents: Start and end of confirmed ones, whose weeks are no history.
    """
    until = (now - _GRACE_US) // WEEK * WEEK
    if kept.until < until:
        _measure(project, endpoint, until, kept)
    monitor = project.definitions.monitors.get(endpoint)
    weeks, signals = judge(
        endpoint,
        kept.weeks,
        alarms_per_week=ALARMS_PER_WEEK if monitor is None else monitor.alarms_per_week,
        incidents=incidents,
    )
    return [Judged(endpoint, WEEKS, tuple(weeks), tuple(signals))] if weeks else []


def _measure(project: Project, endpoint: str, until: int, kept: KeptSeparations) -> None:
    route = project.routes.current().get(endpoint)
    if route is None or find_spec("sklearn") is None:
        return
    kept.weeks = project.separations.weeks(endpoint, until - _LOOKED_AT * WEEK)
    known = {each.start for each in kept.weeks}
    missing = [week for week in range(until - _FIRST * WEEK, until, WEEK) if week not in known]
    if missing:
        arm = max(route.arms, key=lambda each: each.weight)
        found = _of_week(project, endpoint, served(project.bundles.load(arm.digest)), missing[0])
        project.separations.add(endpoint, found)
        kept.weeks = sorted((*kept.weeks, found), key=lambda each: each.start)
    if len(missing) <= 1:
        kept.until = until


def _of_week(project: Project, endpoint: str, bundle: Served, week: int) -> Separation:
    at: list[int] = []
    values: dict[str, list[Any]] = {name: [] for name in bundle.features}
    for since, until, count in ((week - _BEFORE_US, week, BEFORE), (week, week + WEEK, ROWS)):
        selection = Selection(endpoint=endpoint, since=since, until=until)
        ids = project.predictions.sample(selection, count)
        for part in project.predictions.scan(selection, ids):
            for each in part:
                at.append(each.at)
                for name, column in values.items():
                    column.append(each.features.get(name))
    rows = coded(values) if values and at else np.zeros((0, 0))
    return separation(week, list(values), rows, np.array(at, np.int64)[: len(rows)])
