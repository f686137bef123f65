"""The attribution channel of an endpoint: daily samples of predictions, explained by the version that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.ledger.model import Selection
from mainspring.monitoring.channels.attributions import DAYS, Attributions, judge
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import ATTRIBUTION
from mainspring.project import Project
from mainspring.project.explainers import load_explainer
from mainspring.registry.model import Bundle
from mainspring.serving.background import background_of
from mainspring.serving.explanation import NotExplainable
from mainspring.serving.model import Arm
from mainspring.serving.ports import Explainer

ROWS = 100  # predictions of a day
_LEAST_ROWS = 50
_GRACE_US = HOUR  # until the predictions of a day are in the store
_LOOKED_AT = DAYS + 7  # days


@dataclass(slots=True)
class KeptAttributions:
    """Attributions of an endpoint's version, kept between passes: by the start of the day, `None` of one with few
    predictions."""

    digest: str = ""
    until: int = 0
    days: dict[int, Attributions | None] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)


def attributions_judged(
    project: Project, endpoint: str, now: int, kept: KeptAttributions, budget: float = ALARMS_PER_WEEK
) -> list[Judged]:
    """Return the judgement of the complete days of the endpoint's heaviest version.

    A model without an exact explanation, and an endpoint that serves nothing, are not judged.

    Args:
        now: By the domain's clock.
        kept: Of the same endpoint, updated.
        budget: Alarms a week of all the endpoint's channels.
    """
    route = project.routes.current().get(endpoint)
    if route is None:
        return []
    arm = max(route.arms, key=lambda each: each.weight)
    until = (now - _GRACE_US) // DAY * DAY
    if (kept.digest, kept.until) == (arm.digest, until):
        return kept.judged
    if kept.digest != arm.digest:
        kept.days.clear()
    kept.judged = _judged(project, endpoint, arm, until, kept.days, budget)
    kept.digest, kept.until = arm.digest, until
    return kept.judged


def _judged(
    project: Project, endpoint: str, arm: Arm, until: int, kept: dict[int, Attributions | None], budget: float
) -> list[Judged]:
    bundle = project.bundles.load(arm.digest)
    try:
        explainer = load_explainer(bundle)
    except NotExplainable:
        return []
    starts = range(until - _LOOKED_AT * DAY, until, DAY)
    try:
        if missing := [start for start in starts if start not in kept]:
            kept.update(_of_days(project, endpoint, arm.version, explainer, missing))
        trained = _trained(bundle, explainer)
    finally:
        explainer.close()
    for start in [start for start in kept if start not in starts]:
        del kept[start]
    days = [day for start in starts if (day := kept[start]) is not None]
    windows, signals = judge(endpoint, arm.version, list(explainer.inputs), days, trained, budget)
    return [Judged(endpoint, ATTRIBUTION, tuple(windows), tuple(signals))] if windows else []


def _of_days(
    project: Project, endpoint: str, version: str, explainer: Explainer, starts: Sequence[int]
) -> dict[int, Attributions | None]:
    """Return the attributions of days by their starts, from one sample over all; `None` of a day with few rows."""
    selection = Selection(endpoint=endpoint, version=version, since=starts[0], until=starts[-1] + DAY)
    ids = project.predictions.sample(selection, ROWS * len(starts))
    names = list(explainer.inputs)
    by_day: dict[int, list[Any]] = {start: [] for start in starts}
    for part in project.predictions.scan(selection, ids):
        for each in part:
            rows = by_day.get(each.at // DAY * DAY, [])
            if len(rows) < ROWS and all(name in each.features for name in names):
                rows.append(each.features)
    return {start: _of_rows(rows, names, explainer, start) for start, rows in by_day.items()}


def _of_rows(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], explainer: Explainer, start: int
) -> Attributions | None:
    if len(rows) < _LEAST_ROWS:
        return None
    columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in names}
    try:
        return Attributions.of(start, start + DAY, explainer.explain(columns, len(rows)).values)
    except MainspringError:  # a value that the model does not accept, logged by an earlier release
        return None


def _trained(bundle: Bundle, explainer: Explainer) -> dict[str, float]:
    """Return the mean absolute contribution of each column over held-out rows of the bundle."""
    background, rows = background_of(bundle, ROWS)
    found = Attributions.of(0, 0, explainer.explain(background, rows).values)
    return dict(zip(explainer.inputs, found.mean.tolist(), strict=True))
