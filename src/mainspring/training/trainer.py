"""One training, from pinned data to a registered version.

A kill never leaves a half-registered version: the bundle is stored completely before the run is closed, and the
registration, a single step, comes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.time import Clock, format_instant
from mainspring.data.model import DatasetCommit
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.registry.bundles import Bundles
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.registry.ports import ModelVersions, Tracking
from mainspring.registry.processes import process_tags
from mainspring.security.signing import SigningKey
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training.bundling import convert, pack
from mainspring.training.fitting import fit
from mainspring.training.flavours import fitted_columns
from mainspring.training.flavours.scoring import estimator_scores, output_names, score_bundle
from mainspring.training.inputs import check_declared, personal_sources
from mainspring.training.judge import constant, judge, undefined
from mainspring.training.model import Model, TrainReport
from mainspring.training.runs.pinned import CODE_CHANGED, Pinned, pin, pinned_scan
from mainspring.training.runs.provenance import ModuleFiles, changed_files, module_files
from mainspring.training.runs.run import Run
from mainspring.training.sets.assemble import labelled_observations, training_set
from mainspring.training.sets.leakage import refuse_leaks
from mainspring.training.sets.training_set import TrainingSet

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Trainer", "score_bundle"]

_SYSTEM_EVERY_S = 5.0
_LONGEST_CHANGED = 1000  # characters

Progress = Callable[[str, float], None]


class Trainer:
    """Trainer of one project's models.

    Args:
        root: The project's folder, whose code version is recorded.
        imported: Returns the states of the project's module files at import; by default the states when a training
            begins.
    """

    def __init__(
        self,
        *,
        lake: LakeTables,
        snapshots: Snapshots,
        tracking: Tracking,
        versions: ModelVersions,
        bundles: Bundles,
        signing_key: SigningKey,
        clock: Clock,
        root: Path,
        imported: Callable[[], ModuleFiles] | None = None,
    ) -> None:
        self._lake = lake
        self._snapshots = snapshots
        self._tracking = tracking
        self._versions = versions
        self._bundles = bundles
        self._key = signing_key
        self._clock = clock
        self._root = root
        self._imported = imported or partial(module_files, root)

    def train(
        self,
        model: Model,
        *,
        since: int | None = None,
        until: int | None = None,
        commit: DatasetCommit | None = None,
        progress: Progress | None = None,
    ) -> TrainReport:
        """Train on the observations in `[since, until)` and register the resulting version.

        Args:
            commit: The data to train on, by default every table as it is now.
            since: UTC epoch microseconds, `None` from the first.
            until: Likewise; labels that became visible later are not used either.
            progress: Called with a stage's name and the completed share, from 0 to 1.

        Raises:
            Invalid: The model's declaration cannot be trained on any data.
            InvalidData: There is too little data, or the labels do not fit the task.
            NotConvertible: The estimator cannot be converted to an equivalent bundle.
            MainspringError: The training function failed; the message says where.
        """
        check_declared(model)
        begun = time.monotonic()
        tell, imported = progress or _nobody, self._imported()
        tell("pin the data", 0.0)
        pinned = pin(model, self._lake, self._snapshots, self._clock, self._root, commit=commit)
        tags = {**process_tags(), **pinned.tags, "seed": str(model.seed)}
        run_id = self._tracking.start(model.name, tags, self._clock.now())
        with Run(self._tracking, run_id, self._clock, seed=model.seed, system_every_s=_SYSTEM_EVERY_S) as run:
            run.withheld = personal_sources(model)
            for name, content in pinned.files_of_run.items():
                run.log_artefact(name, content)
            bounds = {"since": since, "until": until}
            run.log_params({name: format_instant(at) for name, at in bounds.items() if at is not None})
            run.log_params({"holdout": model.holdout, "task": model.task})
            tell("read the features", 0.05)
            everything, held_out, notes = self._data(model, pinned, since, until)
            run.log_param("dropped", everything.dropped)
            run.log_params({f"dropped.{reason}": count for reason, count in everything.left_out.items()})
            if notes:
                run.log_artefact("notes.txt", "\n".join(notes).encode())
            data = everything.only([name for name in everything.dtypes if name in model.columns])
            findings = [str(each) for each in refuse_leaks(model.name, data, model.accept_findings)]
            if findings:
                run.log_artefact("leakage.txt", "\n".join(findings).encode())
            constant(model, data)  # a failing custom metric fails here, before hours of training
            bundle, baseline = self._bundle(model, data, everything, held_out, pinned, run, (since, until), tell)
            tell("store", 0.95)
            self._bundles.save(bundle)
            if changed := [str(file.relative_to(self._root)) for file in changed_files(imported)]:
                run.set_tag(CODE_CHANGED, ", ".join(changed)[:_LONGEST_CHANGED])
                notes.append(f"Files changed after they were imported, so what ran is not known: {', '.join(changed)}.")
        self._tracking.finish(run_id, "FINISHED", self._clock.now())
        version = self._register(model, bundle, pinned)
        tell("done", 1.0)
        measured = {k: v for k, v in bundle.manifest.metrics.items() if not k.startswith("baseline.")}
        return TrainReport(
            model=model.name,
            version=version.version,
            digest=bundle.digest,
            run_id=run_id,
            training_rows=len(data.train),
            holdout_rows=len(data.holdout),
            metrics=measured,
            baseline=baseline,
            seconds=time.monotonic() - begun,
            findings=findings,
            undefined=undefined(model, data, measured),
            threshold=bundle.manifest.extra.get(THRESHOLD, {}).get("value"),
            left_out=dict(everything.left_out),
            notes=notes,
        )

    def _data(
        self, model: Model, pinned: Pinned, since: int | None, until: int | None
    ) -> tuple[TrainingSet, pa.Table, list[str]]:
        """Return the training set, its held-out rows as a table, and notes on the rows left out."""
        scan = partial(pinned_scan, self._lake, pinned.commit)
        table, left_out = labelled_observations(model, scan, since=since, until=until)
        data, held_out = training_set(model, table, left_out)
        between = table.num_rows - len(data.train) - len(data.validation) - len(data.holdout)
        notes = [f"{left_out}."] if left_out.total else []
        embargo = [f"{between:,} labelled observations lie in the embargo between parts."] if between else []
        return data, held_out, notes + embargo

    def _bundle(
        self,
        model: Model,
        data: TrainingSet,
        everything: TrainingSet,
        held_out: pa.Table,
        pinned: Pinned,
        run: Run,
        span: tuple[int | None, int | None],
        tell: Progress,
    ) -> tuple[Bundle, dict[str, float]]:
        tell("fit", 0.3)
        with run.active():
            estimator = fit(model, data, run)
        data = data.only(fitted_columns(estimator, data.features))
        outputs = output_names(estimator, model.task, model.label_columns)
        tell("fit the baseline", 0.6)
        with run.aside("baseline"):
            baseline = _baseline(model, everything, run, outputs)
        with run.aside("conversion"):
            converted = convert(model, estimator, data, tell)
        run.log_metrics({f"holdout.{name}": value for name, value in converted.metrics.items()})
        run.log_metrics({f"baseline.{name}": value for name, value in baseline.items()})
        if converted.threshold is not None:
            run.log_param(THRESHOLD, converted.threshold)
        run.log_params({"training_rows": len(data.train), "holdout_rows": len(data.holdout)})
        tell("seal", 0.9)
        rows = held_out.select([*data.features, "_at", "_label"])
        bundle = pack(
            model,
            converted,
            data,
            rows,
            pinned,
            self._key,
            baseline=baseline,
            run_id=run.id,
            since=span[0],
            until=span[1],
            at=self._clock.now(),
        )
        run.log_param("digest", bundle.digest)
        return bundle, baseline

    def _register(self, model: Model, bundle: Bundle, pinned: Pinned) -> ModelVersion:
        manifest = bundle.manifest
        lineage = {
            "dataset_commit": manifest.dataset_commit,
            "code_version": manifest.code_version,
            "features_digest": manifest.features_digest,
            "files_digest": pinned.files,
        }
        version = self._versions.register(model.name, bundle.digest, manifest.run_id, lineage, self._clock.now())
        self._tracking.log(manifest.run_id, tags={"version": version.version})
        return version


def _baseline(model: Model, data: TrainingSet, run: Run, outputs: tuple[str, ...]) -> dict[str, float]:
    """Return the held-out metrics of the same function on the baseline's features, or of a constant predictor."""
    if not model.baseline:
        return constant(model, data, outputs)
    few = data.only([name for name in data.dtypes if name in model.baseline_columns])
    with run.prefixed("baseline.") as told:
        estimator: Any = fit(model, few, told)
    few = few.only(fitted_columns(estimator, few.features))
    held_out, validation = (estimator_scores(estimator, part.X, model.task) for part in (few.holdout, few.validation))
    outputs = output_names(estimator, model.task, model.label_columns)
    return judge(model, few, held_out, validation, outputs)[0]


def _nobody(_stage: str, _share: float) -> None:
    """Ignore progress."""
