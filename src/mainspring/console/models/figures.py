"""Metrics of many versions at once, from their runs, since bundles would have to be verified one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console.charts import Chart, Line, Table
from mainspring.console.formats import missing, number
from mainspring.core.errors import NotFound
from mainspring.delivery.gates import BASELINE
from mainspring.operations.runs import HELD_OUT
from mainspring.project import Project
from mainspring.registry.model import ModelVersion, RunRecord
from mainspring.registry.searching import RunRow
from mainspring.stats.metrics import HIGHER_IS_BETTER, Metric, higher_is_better

COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Figures:
    """Metrics of a run on its holdout rows: of the model, and of the baseline on the same rows."""

    values: Mapping[str, float]
    baseline: Mapping[str, float]


NOTHING = Figures({}, {})


def runs_of(project: Project, versions: Sequence[ModelVersion]) -> dict[str, RunRow]:
    """Return the runs of versions by id, without those that are not in this installation's store."""
    ids = list(dict.fromkeys(version.run_id for version in versions if version.run_id))
    try:
        return {run.id: run for run in project.run_search.get(ids)} if ids else {}
    except NotFound:
        found: dict[str, RunRow] = {}
        for each in ids:
            try:
                found[each] = project.run_search.get([each])[0]
            except NotFound:
                continue
        return found


def figures_of(run: RunRow | None) -> Figures:
    """Return a run's metrics. Mainspring's own runs log `holdout.auc`; runs of another origin only `auc`."""
    if run is None:
        return NOTHING
    finite = {name: value for name, value in run.metrics.items() if math.isfinite(value)}
    judged = {name.removeprefix(HELD_OUT): value for name, value in finite.items() if name.startswith(HELD_OUT)}
    baseline = {name.removeprefix(BASELINE): value for name, value in finite.items() if name.startswith(BASELINE)}
    return Figures(judged or {name: value for name, value in finite.items() if name in HIGHER_IS_BETTER}, baseline)


def columns(project: Project, model: str, of: Sequence[Figures]) -> tuple[str, ...]:
    """Return the metrics that get a column: those of gates, then the others that any version has."""
    declared = project.definitions.models.get(model)
    gated = [gate.metric for gate in (declared.gates if declared else ()) if gate.on_metric]
    known = sorted({name for each in of for name in each.values}, key=lambda name: (name not in HIGHER_IS_BETTER, name))
    return tuple(dict.fromkeys([*(name for name in gated if name in known), *known]))[:COLUMNS]


def over_versions(
    metric: str,
    versions: Sequence[ModelVersion],
    of: Mapping[str, Figures],
    champion: str | None,
    declared: Sequence[Metric] = (),
) -> Chart | None:
    """Return a metric over the versions, oldest first; `None` if fewer than two have it.

    Args:
        of: Run -> its metrics.
        declared: The model's own metrics.
    """
    told = [(int(each.version), of[each.run_id]) for each in versions if metric in of.get(each.run_id, NOTHING).values]
    told.sort(key=lambda pair: pair[0])
    if len(told) < 2:
        return None
    numbers = tuple(place for place, _ in told)
    values = tuple(each.values[metric] for _, each in told)
    baseline = tuple(each.baseline.get(metric) for _, each in told)
    better = {True: "; higher is better", False: "; lower is better", None: ""}[higher_is_better(metric, declared)]
    at = next((place for place in numbers if str(place) == champion), None)
    rows = zip(numbers, values, baseline, strict=True)
    return Chart(
        id="over-versions",
        title=metric,
        kind="lines",
        unit="number",
        starts=numbers,
        ends=tuple(place + 1 for place in numbers),
        lines=(Line(metric, values),),
        table=Table(("Version", metric, "Baseline"), tuple(_told(*row) for row in reversed(list(rows)))),
        from_zero=False,
        note=f"on the held-out rows of each version{better}" + (f"; version {at} is champion" if at else ""),
        marks=() if at is None else ((at, "champion"),),
        pieces="versions",
        axis="step",
        step="version",
    )


def _told(place: int, value: float, baseline: float | None) -> tuple[str | Markup, ...]:
    return str(place), number(value, 5), missing("not measured") if baseline is None else number(baseline, 5)


def record_of(run: RunRow | None) -> RunRecord | None:
    """Return a run in the form that the registry's functions take."""
    if run is None:
        return None
    return RunRecord(run.id, run.model, run.status, run.started_at, run.ended_at, run.params, run.metrics, run.tags)
