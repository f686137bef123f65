"""One trial of a search: the training function with chosen parameters, evaluated on the validation rows alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import Clock
from mainspring.features.offline.observed import AT
from mainspring.features.offline.stored import Scan
from mainspring.registry.ports import Tracking
from mainspring.registry.runs import error_text
from mainspring.training.fitting import fit_model
from mainspring.training.flavours import estimator_scores
from mainspring.training.frames import to_frame
from mainspring.training.inputs import feature_types, personal_sources
from mainspring.training.judge import evaluate
from mainspring.training.label import label_keys
from mainspring.training.model import Model
from mainspring.training.runs.run import Run
from mainspring.training.sets.assemble import (
    instants,
    label_values,
    labelled_observations,
)
from mainspring.training.sets.labels import LABEL
from mainspring.training.sets.splits import cut_by_time
from mainspring.training.sets.training_set import Split, TrainingSet
from mainspring.training.space import Chosen
from mainspring.training.stages import Fitted

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, VALIDATION = "train.arrow", "validation.arrow"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
STATE, VALUE, REASON = "mainspring.trial.state", "mainspring.trial.value", "mainspring.trial.reason"  # tags of its run
Report = Callable[[float, int], bool]  # (value, step) -> whether to prune the trial


@dataclass(frozen=True, slots=True)
class Ended:
    """Result of a trial. `value` is the metric of a complete trial, or the last reported value of a pruned one."""

    state: str
    value: float | None = None
    reason: str = ""


class _Pruned(MainspringError):
    """Signals a pruned trial; a `MainspringError`, so that `fit` passes it through."""


class _TrialRun(Run):
    """A run that stops its training function when a report prunes the trial."""

    watched = ""
    report: Report | None = None
    last: float | None = None

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        super().log_metrics(values, step)
        if self.report is not None and self.watched in values:
            self.last = float(values[self.watched])
            if self.report(self.last, int(step)):
                raise _Pruned(f"{self.watched} is {self.last} at step {step}.")


def write_rows(model: Model, scan: Scan, folder: Path, *, since: int | None, until: int | None) -> None:
    """Write the training and validation rows of a search, once, into two Arrow files of `folder` that every trial maps.

    The held-out rows are in neither, so no trial can use them. Existing files stay unchanged.

    Raises:
        InvalidData: There is too little to train on.
    """
    if (folder / TRAIN).exists() and (folder / VALIDATION).exists():
        return
    import pyarrow as pa

    table, _ = labelled_observations(model, scan, since=since, until=until)
    cut = cut_by_time(instants(table), model.holdout, embargo=model.embargo_us)
    keys = label_keys(model.observations, model.label)
    columns = [*dict.fromkeys([*feature_types(model, model.columns), AT, LABEL, *keys])]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, part in ((TRAIN, cut.train), (VALIDATION, cut.validation)):
        rows = table.slice(part.start, part.stop - part.start).select(columns)
        beside = folder / f".{name}"
        with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        beside.rename(folder / name)


def read_rows(model: Model, folder: Path) -> TrainingSet:
    """Return the rows of `write_rows` as a training set with an empty holdout."""
    dtypes = feature_types(model, model.columns)

    def split(table: pa.Table) -> Split:
        keys = table.select(label_keys(model.observations, model.label)).to_pandas()
        return Split(to_frame(table, dtypes), label_values(table.column(LABEL), model), instants(table), keys)

    train, validation = _mapped(folder / TRAIN), _mapped(folder / VALIDATION)
    return TrainingSet(
        split(train), split(validation), split(validation.slice(0, 0)), dtypes, model.task, 0, model.embargo_us,
        labels=model.label_columns,
    )  # fmt: skip


def _mapped(path: Path) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def try_params(
    model: Model,
    data: TrainingSet,
    params: Mapping[str, Any],
    tracking: Tracking,
    run_id: str,
    clock: Clock,
    report: Report,
) -> Ended:
    """Train with `params` in the run `run_id`, and close the run. An error of the training function ends only this
    trial.

    The run is closed last, so a FINISHED run always has the trial's result in its tags, even after a crash.
    """
    assert model.search is not None
    run = _TrialRun(tracking, run_id, clock, seed=model.seed)
    run.watched, run.report = model.search.watched, report
    run.withheld = personal_sources(model)
    chosen = replace(model, train=Chosen(model.train, params))
    try:
        with run:
            try:
                with run.active():
                    fitted = fit_model(chosen, data, run)
                run.report = None
                ended = Ended(COMPLETE, _evaluate(fitted, run))
            except _Pruned as error:
                ended = Ended(PRUNED, run.last, str(error.what))
            run.set_tags({STATE: ended.state, VALUE: repr(ended.value), REASON: ended.reason})
    except MainspringError as error:
        ended = Ended(FAILED, None, error_text(error, withheld=run.withheld) if run.withheld else error.what)
        tracking.log(run_id, tags={STATE: FAILED, REASON: ended.reason[:6000]})
        return ended
    tracking.finish(run_id, "FINISHED", clock.now())
    return ended


def _evaluate(fitted: Fitted, run: Run) -> float:
    """Log the metrics of the validation rows and return the one that is searched for."""
    model, rows = fitted.model, fitted.data.validation
    assert model.search is not None
    scores = estimator_scores(fitted.estimator, rows.X, model.task)
    found = evaluate(model.task, rows.y, scores, fitted.outputs, model.measured, model.label_columns)
    run.log_metrics({f"validation.{name}": value for name, value in found.items()})
    value = found.get(model.search.metric, math.nan)
    if not math.isfinite(value):
        raise Invalid(
            f"The validation rows have no {model.search.metric}, only {', '.join(found) or 'nothing'}.",
            fix="check that the validation rows have both classes, or choose another metric.",
        )
    return value


def ended_of(tags: Mapping[str, str], status: str) -> Ended | None:
    """Return the result of a run's trial from its tags; `None` if its process died before the end."""
    state = tags.get(STATE)
    if state == FAILED or (state is None and status == "FAILED"):
        return Ended(FAILED, None, tags.get(REASON, "its process died while it was being closed"))
    if state is None or status != "FINISHED":
        return None
    value = tags.get(VALUE, "None")
    return Ended(state, None if value == "None" else float(value), tags.get(REASON, ""))
