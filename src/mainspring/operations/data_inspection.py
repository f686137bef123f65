"""Searches of a model's training data: for wrong labels, near-duplicates, and rows that do harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.data.model import BATCH
from mainspring.data.without import groups
from mainspring.operations.auditing import audit
from mainspring.operations.ingest import WITHHELD
from mainspring.operations.train import prepared
from mainspring.project import Project
from mainspring.stats.metrics import named
from mainspring.training import label_issues as labels
from mainspring.training import near_duplicates as copies
from mainspring.training.influence import Influence, influences
from mainspring.training.inputs import personal_columns, read_by
from mainspring.training.label_issues import Suspects
from mainspring.training.model import Model
from mainspring.training.near_duplicates import NearDuplicates
from mainspring.training.row_table import csv_table, personal_keys
from mainspring.training.runs.run import Run
from mainspring.training.stages import Observed

Progress = Callable[[str, float], None]
LEAST_THRESHOLD = 0.8  # below which too many pairs would have to be compared


def label_issues(
    project: Project,
    model: str,
    *,
    since: int | None = None,
    until: int | None = None,
    folds: int = 5,
    reveal: bool = False,
    progress: Progress | None = None,
) -> tuple[str, Suspects]:
    """Return the run in which it is recorded, and the rows whose labels are probably wrong.

    A model that declares a search is fitted with the best parameters of its last search. The run's `label_issues.csv`
    has every suspect; see `training.label_issues.suspects`.

    Args:
        reveal: Whether keys that identify a person are shown too; the audit log records it.
    """
    chosen, _ = prepared(project, model)
    hidden = personal_keys(chosen)

    def look(observed: Observed, run: Run, tell: Progress) -> Suspects:
        found = labels.suspects(chosen, observed.data, run, folds=folds, tell=tell)
        run.log_metrics({"label_issues": float(len(found.suspects)), "rows": float(found.rows)})
        run.log_artefact("label_issues.csv", labels.table_of(found, hidden=hidden))
        return found

    until = project.clock.now() if until is None else until
    run, found = project.trainer.inspect(chosen, "label issues", look, since=since, until=until, progress=progress)
    shown = [replace(each, keys=_shown(each.keys, chosen, reveal)) for each in found.suspects]
    _revealed(project, "labels.reveal", chosen, run, reveal)
    return run, replace(found, suspects=tuple(shown))


def near_duplicates(
    project: Project,
    model: str,
    *,
    since: int | None = None,
    until: int | None = None,
    threshold: float = 0.95,
    reveal: bool = False,
    progress: Progress | None = None,
) -> tuple[str, NearDuplicates]:
    """Return the run in which it is recorded, and the rows that nearly repeat an earlier one.

    The run's `near_duplicates.csv` has all of them; see `training.near_duplicates.find`.

    Args:
        threshold: Least similarity of the features of two rows, in [0.8, 1].
        reveal: As of `label_issues`.

    Raises:
        Invalid: The threshold is out of its range.
    """
    if not LEAST_THRESHOLD <= threshold <= 1:
        raise Invalid(f"A similarity of {threshold} cannot be searched for.", fix=f"take {LEAST_THRESHOLD} to 1.")
    chosen, _ = prepared(project, model)
    hidden = personal_keys(chosen)

    def look(observed: Observed, run: Run, tell: Progress) -> NearDuplicates:
        tell("compare the rows", 0.2)
        found = copies.find(observed.data, threshold, seed=chosen.seed)
        counts = {f"near_duplicates.{part}": float(count) for part, count in found.repeats.items()}
        run.log_metrics({**counts, **{f"rows.{part}": float(count) for part, count in found.rows.items()}})
        run.log_params({"threshold": threshold})
        run.log_artefact("near_duplicates.csv", copies.table_of(found, hidden=hidden))
        return found

    until = project.clock.now() if until is None else until
    run, found = project.trainer.inspect(chosen, "near duplicates", look, since=since, until=until, progress=progress)
    _revealed(project, "rows.reveal", chosen, run, reveal)

    def shown(row: copies.Row) -> copies.Row:
        return replace(row, keys=_shown(row.keys, chosen, reveal))

    return run, replace(
        found,
        most_repeated=tuple((shown(row), count) for row, count in found.most_repeated),
        found=tuple(replace(each, row=shown(each.row), of=shown(each.of)) for each in found.found),
    )


def influence(
    project: Project,
    model: str,
    by: str,
    *,
    since: int | None = None,
    until: int | None = None,
    metric: str = "",
    most: int = 10,
    progress: Progress | None = None,
) -> tuple[str, str, list[Influence]]:
    """Return the run in which it is recorded, the metric, and the influence of each group of rows, the most harmful
    first; see `training.influence.influences`.

    Args:
        by: `SOURCE.COLUMN`: each value is a group; `SOURCE`: each batch. Values that identify a person are withheld.
        metric: By default the log loss, or the mean absolute error of a regression.
        most: Number of groups, those with most rows; the model is fitted so many times and once more.

    Raises:
        Invalid: There is no such metric or column, or the model does not read the source.
    """
    chosen, _ = prepared(project, model)
    name = metric or ("mae" if chosen.task == "regression" else "log_loss")
    measured = named(name) or next((each for each in chosen.measured if each.name == name), None)
    if measured is None or name not in chosen.metric_names:
        raise Invalid(f"Model {model!r} has no metric {name!r}.", fix=f"name one of {', '.join(chosen.metric_names)}.")
    source, _, column = by.partition(".")
    read = read_by(chosen)
    if source not in read:
        raise Invalid(f"Model {model!r} does not read a source {source!r}.", fix=f"name one of {sorted(read)}.")
    personal = column in personal_columns(chosen, source)

    def look(observed: Observed, run: Run, tell: Progress) -> list[Influence]:
        found = groups(project.trainer.scan(observed, source), read[source], column or BATCH, most)
        run.log_params({"by": by, "metric": name})
        results = influences(
            chosen, observed.data, found, lambda each: project.trainer.observe_without(observed, [each]).data,
            measured, run, tell,
        )  # fmt: skip
        if personal:
            results = [replace(each, group=replace(each.group, value=WITHHELD)) for each in results]
        run.log_artefact("influence.csv", csv_table(
            ("group", "rows", "fitted_on", "judged_on", "value", "gain", "low", "high", "harmful", "why_not"),
            ((str(each.group), each.rows, each.fitted_on, each.judged_on, each.value, each.gain, each.low, each.high,
              each.harmful, each.why_not) for each in results),
        ))  # fmt: skip
        return results

    until = project.clock.now() if until is None else until
    run, found = project.trainer.inspect(chosen, "influence", look, since=since, until=until, progress=progress)
    return run, name, found


def _shown(keys: dict[str, Any], model: Model, reveal: bool) -> dict[str, Any]:
    """Return a row's keys, without those that identify a person unless they are to be revealed."""
    hidden = frozenset[str]() if reveal else personal_keys(model)
    return {name: WITHHELD if name in hidden else value for name, value in keys.items()}


def _revealed(project: Project, action: str, model: Model, run: str, reveal: bool) -> None:
    if reveal and (personal := personal_keys(model)):
        audit(project, action, f"model/{model.name}", f"run {run}: {', '.join(sorted(personal))}")
