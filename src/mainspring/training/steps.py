"""Steps of one training: each makes a stage of the one before, and logs what it found in the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from mainspring.core.time import format_instant
from mainspring.data.without import Without
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training.bundling import convert as bundled
from mainspring.training.fitting import fit_model
from mainspring.training.flavours import estimator_scores
from mainspring.training.frames import Array
from mainspring.training.judge import constant, constant_scores, judge
from mainspring.training.model import Model
from mainspring.training.runs.provenance import Pinned
from mainspring.training.runs.run import Run
from mainspring.training.sets.assemble import WITHOUT
from mainspring.training.sets.leakage import refuse_leaks
from mainspring.training.sets.training_set import TrainingSet
from mainspring.training.stages import Converted, Fitted, Observed


def log_inputs(
    run: Run,
    model: Model,
    pinned: Pinned,
    since: int | None,
    until: int | None,
    without: Sequence[Without] = (),
) -> None:
    """Log the data, the files and the settings that a training begins with."""
    for name, content in pinned.files_of_run.items():
        run.log_artefact(name, content)
    bounds = {"since": since, "until": until}
    known = {name: format_instant(at) for name, at in bounds.items() if at is not None}
    run.log_params({**known, "holdout": model.holdout, "task": model.task})
    if without:
        run.log_params({WITHOUT: msgspec.json.encode([*map(str, without)]).decode()})


def check(observed: Observed, run: Run) -> list[str]:
    """Log what was observed and return the warnings about leaks.

    A severe leak that is not accepted is refused here, and a custom metric that fails, before hours of training.
    """
    everything = observed.everything
    reasons = {f"dropped.{reason}": count for reason, count in everything.left_out.items()}
    run.log_params({"dropped": everything.dropped, **reasons})
    if observed.notes:
        run.log_artefact("notes.txt", "\n".join(observed.notes).encode())
    model = observed.model
    findings = [str(each) for each in refuse_leaks(model.name, observed.data, model.accept_findings)]
    if findings:
        run.log_artefact("leakage.txt", "\n".join(findings).encode())
    constant(model, observed.data)
    return findings


def fit(observed: Observed, run: Run, tell: Callable[[str, float], None]) -> Fitted:
    """Fit the estimator and its baseline."""
    tell("fit", 0.3)
    with run.active():
        fitted = fit_model(observed.model, observed.data, run)
    tell("fit the baseline", 0.6)
    with run.aside("baseline"):
        baseline, scores = _baseline(observed, fitted.outputs, run)
        return replace(fitted, baseline=baseline, baseline_scores=scores)


def _baseline(observed: Observed, outputs: tuple[str, ...], run: Run) -> tuple[dict[str, float], Array | None]:
    """Return the held-out metrics and predictions of the same function on the baseline's features, or of a constant
    predictor; no predictions if their classes are not `outputs`.
    """
    model, data = observed.model, observed.everything
    if not model.baseline:
        scores = constant_scores(model.task, data.train.y, len(data.holdout), outputs)
        return constant(model, data, outputs), scores
    with run.prefixed("baseline.") as prefixed:
        fitted = fit_model(model, of_baseline(observed), prefixed)
    few = fitted.data
    held_out, validation = (
        estimator_scores(fitted.estimator, part.X, model.task) for part in (few.holdout, few.validation)
    )
    found = judge(model, few, held_out, validation, fitted.outputs)[0]
    return found, held_out if fitted.outputs == outputs else None


def of_baseline(observed: Observed) -> TrainingSet:
    """Return the rows with the features of the baseline alone."""
    data = observed.everything
    return data.only([name for name in data.dtypes if name in observed.model.baseline_columns])


def convert(fitted: Fitted, run: Run, tell: Callable[[str, float], None]) -> Converted:
    """Convert the estimator, with its metrics and those of its baseline logged."""
    with run.aside("conversion"):
        converted = bundled(fitted, tell)
    parts = {"holdout": converted.metrics, "baseline": fitted.baseline}
    run.log_metrics({f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()})
    threshold = {} if converted.threshold is None else {THRESHOLD: converted.threshold}
    rows = {"training_rows": len(fitted.data.train), "holdout_rows": len(fitted.data.holdout)}
    run.log_params({**threshold, **rows})
    return converted
