"""The attribution channel of an endpoint: daily samples of predictions, explained by the version that made them.

An endpoint with `ms.Log(explanations=...)` keeps these explanations in the log, and the channel reads them from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, HOUR
from mainspring.ledger.model import SAMPLED, KeptExplanation, Prediction, Selection
from mainspring.monitoring.channels.attributions import DAYS, Attributions, judge
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import ATTRIBUTION
from mainspring.project import Project
from mainspring.project.explainers import load_explainer
from mainspring.registry.model import Bundle
from mainspring.serving.background import background_of
from mainspring.serving.explanation import Array, Explanation, NotExplainable, explanations
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
    kept.judged = _judged(project, endpoint, arm, route.log.explanations, until, kept.days, budget)
    kept.digest, kept.until = arm.digest, until
    return kept.judged


def _judged(
    project: Project,
    endpoint: str,
    arm: Arm,
    explained: int | None,
    until: int,
    kept: dict[int, Attributions | None],
    budget: float,
) -> list[Judged]:
    bundle = project.bundles.load(arm.digest)
    try:
        explainer = load_explainer(bundle)
    except NotExplainable:
        return []
    starts = range(until - _LOOKED_AT * DAY, until, DAY)
    try:
        if missing := [start for start in starts if start not in kept]:
            sampled = _Sampled(project, endpoint, arm, explainer, explained or 0)
            kept.update(sampled.of_days(missing))
        trained = _trained(bundle, explainer)
    finally:
        explainer.close()
    for start in [start for start in kept if start not in starts]:
        del kept[start]
    days = [day for start in starts if (day := kept[start]) is not None]
    windows, signals = judge(endpoint, arm.version, list(explainer.inputs), days, trained, budget)
    return [Judged(endpoint, ATTRIBUTION, tuple(windows), tuple(signals))] if windows else []


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Sampled explanations of one version's days.

    Attributes:
        keep: Number of explanations of a day that are kept in the log; 0 keeps none.
    """

    project: Project
    endpoint: str
    arm: Arm
    explainer: Explainer
    keep: int

    def of_days(self, starts: Sequence[int]) -> dict[int, Attributions | None]:
        """Return the attributions of days by their starts; `None` of a day with few rows."""
        values = self._kept(starts) if self.keep else {}
        missing = [start for start in starts if start not in values]
        for start, rows in self._sample(missing).items() if missing else ():
            values[start] = self._explained(rows)
        return {start: None if len(of) < _LEAST_ROWS else Attributions.of(start, start + DAY, of)
                for start, of in values.items()}  # fmt: skip

    def _kept(self, starts: Sequence[int]) -> dict[int, Array]:
        """Return contributions of the days that have kept explanations, shape (rows, columns, outputs)."""
        found: dict[int, list[Array]] = {}
        columns, outputs = list(self.explainer.inputs), list(self.explainer.outputs)
        for each in self.project.predictions.explained(self.endpoint, self.arm.version, starts[0], starts[-1] + DAY):
            if each.digest == self.arm.digest:
                explanation = msgspec.json.decode(each.document, type=Explanation)
                parts = [explanation.outputs[name].contributions for name in outputs]
                row = np.array([[part[column] for part in parts] for column in columns])
                found.setdefault(each.at // DAY * DAY, []).append(row)
        return {start: np.stack(found[start]) for start in starts if start in found}

    def _sample(self, starts: Sequence[int]) -> dict[int, list[Prediction]]:
        """Return predictions of days by their starts, from one sample over all."""
        most = max(ROWS, self.keep)
        selection = Selection(endpoint=self.endpoint, version=self.arm.version, since=starts[0], until=starts[-1] + DAY)
        ids = self.project.predictions.sample(selection, most * len(starts))
        by_day: dict[int, list[Prediction]] = {start: [] for start in starts}
        for part in self.project.predictions.scan(selection, ids):
            for each in part:
                rows = by_day.get(each.at // DAY * DAY, [])
                known = not each.fallback and all(name in each.features for name in self.explainer.inputs)
                if len(rows) < most and known:
                    rows.append(each)
        return by_day

    def _explained(self, rows: Sequence[Prediction]) -> Array:
        """Return the contributions of one day's rows, and keep their explanations."""
        explainer, nothing = self.explainer, np.zeros((0, 0, 0))
        if not rows or (len(rows) < _LEAST_ROWS and not self.keep):
            return nothing
        columns: dict[str, Sequence[Any]] = {name: [row.features[name] for row in rows] for name in explainer.inputs}
        try:
            found = explainer.explain(columns, len(rows))
        except MainspringError:  # a value that the model does not accept, logged by an earlier release
            return nothing
        if self.keep:
            made = explanations(found, explainer.method, list(explainer.inputs), list(explainer.outputs))
            self.project.prediction_log.explain([_kept_of(row, each) for row, each in zip(rows, made, strict=True)])
        return found.values


def _kept_of(row: Prediction, explanation: Explanation) -> KeptExplanation:
    return KeptExplanation(
        id=row.id,
        endpoint=row.endpoint,
        model=row.model,
        version=row.version,
        digest=row.digest,
        at=row.at,
        origin=SAMPLED,
        **explanation.kept(),
    )


def _trained(bundle: Bundle, explainer: Explainer) -> dict[str, float]:
    """Return the mean absolute contribution of each column over held-out rows of the bundle."""
    background, rows = background_of(bundle, ROWS)
    found = Attributions.of(0, 0, explainer.explain(background, rows).values)
    return dict(zip(explainer.inputs, found.mean.tolist(), strict=True))
