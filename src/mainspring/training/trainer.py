"""One training, from pinned data to a registered version.

A kill never leaves a half-registered version: the bundle is stored completely before the run is closed, and the
registration, a single step, comes last. The stages, each made from the one before: pinned inputs, `Observed`, `Fitted`,
`Converted`, the sealed bundle, the registered version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mainspring.core.errors import Conflict
from mainspring.core.time import Clock
from mainspring.cost.metering import name_work
from mainspring.cost.usage import RUN, Subject
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.data.without import Scan, Without, read
from mainspring.data.without import told as left_out_rows
from mainspring.features.offline.stored import StoredRead
from mainspring.registry.bundles import Bundles
from mainspring.registry.model import Bundle, Manifest
from mainspring.registry.ports import ModelVersions, Tracking
from mainspring.registry.processes import process_tags
from mainspring.registry.runs import PURPOSE
from mainspring.security.signing import SigningKey
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training.bundling import pack
from mainspring.training.fitting import fit_model
from mainspring.training.inputs import check_declared, check_left_out, personal_sources, read_by, remaining
from mainspring.training.judge import undefined
from mainspring.training.model import Model, TrainReport
from mainspring.training.runs.muted import MutedTracking
from mainspring.training.runs.provenance import (
    CODE_CHANGED,
    ModuleFiles,
    Pinned,
    changed_files,
    module_files,
    pin,
    pinned_scan,
)
from mainspring.training.runs.run import Run
from mainspring.training.sets.assemble import WITHOUT, labelled_observations, training_set
from mainspring.training.stages import Observed
from mainspring.training.steps import check, convert, fit, log_inputs, of_baseline

_SYSTEM_EVERY_S = 5.0
_LONGEST_CHANGED = 1000  # characters
STATEMENT = "features.sql"  # artefact of a run whose features another engine read: its statement

Progress = Callable[[str, float], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that another process began: its id, its dataset commit, and the digest of the project's files."""

    run_id: str
    commit: str
    files: str


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
        share: float = 1.0,
        without: Sequence[Without] = (),
        stored: StoredRead | None = None,
        progress: Progress | None = None,
    ) -> TrainReport:
        """Train on the observations in `[since, until)` and register the resulting version.

        Args:
            commit: The data to train on, by default every table as it is now.
            share: Share of the observations to train on, spread evenly over time.
            without: Rows to leave out, as if they had never been ingested.
            stored: Reads the stored features instead of DuckDB, which reads them from the lake; its tags and its
                statement are kept with the run.
            since: UTC epoch microseconds, `None` from the first.
            until: Likewise; labels that became visible later are not used either.
            progress: Called with a stage's name and the completed share, from 0 to 1.

        Raises:
            Invalid: The model's declaration cannot be trained on any data, or rows are to be left out by a value that
                identifies a person.
            InvalidData: There is too little data, or the labels do not fit the task.
            NotConvertible: The estimator cannot be converted to an equivalent bundle.
            MainspringError: The training function failed; the message says where.
        """
        check_declared(model)
        check_left_out(model, without)
        imported, tell = self._imported(), progress or _nobody
        tell("pin the data", 0.0)
        pinned = self._pin(model, commit)
        with self._start(model, pinned) as run:
            log_inputs(run, model, pinned, since, until, without)
            bundle, report = self._build(model, pinned, run, since, until, share, without, stored, imported, tell)
        return self._registered(bundle, pinned, report, tell)

    def begin(
        self,
        model: Model,
        *,
        since: int | None = None,
        until: int | None = None,
        commit: DatasetCommit | None = None,
        without: Sequence[Without] = (),
    ) -> tuple[str, Pinned]:
        """Open the run of a training that other processes do, by default on the data as it is now; return its id too.

        Each calls `build`, or `follow` if it is not the first rank; afterwards this one calls `register`.
        """
        check_declared(model)
        check_left_out(model, without)
        pinned = self._pin(model, commit)
        with self._start(model, pinned) as run:
            log_inputs(run, model, pinned, since, until, without)
        return run.id, pinned

    def build(
        self,
        model: Model,
        begun: Begun,
        *,
        since: int | None = None,
        until: int | None = None,
        without: Sequence[Without] = (),
        progress: Progress | None = None,
    ) -> TrainReport:
        """Train as the first rank of a run that is open, and store the bundle; the version is not registered yet.

        Raises as `train` does.
        """
        imported = self._imported()
        pinned = self._pinned_as(model, begun)
        run = Run(
            self._tracking, begun.run_id, self._clock, seed=model.seed, system_every_s=_SYSTEM_EVERY_S, stays_open=True
        )
        run.withheld = personal_sources(model)
        with run:
            return self._build(model, pinned, run, since, until, 1.0, without, None, imported, progress or _nobody)[1]

    def follow(
        self,
        model: Model,
        begun: Begun,
        *,
        since: int | None = None,
        until: int | None = None,
        without: Sequence[Without] = (),
    ) -> None:
        """Fit as `build` does, as another rank of the same training; nothing is kept. Raises as `train` does."""
        observed = self._observe(model, self._pinned_as(model, begun), since, until, without=without)
        with Run(MutedTracking(), begun.run_id, self._clock, seed=model.seed) as run:
            fit_model(model, observed.data, run)
            if model.baseline:
                with run.prefixed("baseline.") as prefixed:
                    fit_model(model, of_baseline(observed), prefixed)

    def again(self, model: Model, made: Manifest, use: Callable[[Observed, Run], T]) -> T:
        """Return the result of `use`, given the rows that a version was trained on and a run of which nothing is kept.

        Raises:
            NotFound: The data are gone.
            Conflict: The project's features are not those of the version any more.
        """
        pinned = self._pin(model, self._snapshots.get(made.dataset_commit))
        if pinned.tags["features_digest"] != made.features_digest:
            raise Conflict(
                f"The features of {model.name} were changed since the version was trained.",
                fix=f"train it again: mainspring train {model.name}.",
            )
        since, until = made.extra.get("since"), made.extra.get("until")
        observed = self._observe(model, pinned, since, until, without=[*map(read, made.extra.get(WITHOUT, ()))])
        with Run(MutedTracking(), made.run_id, self._clock, seed=model.seed) as run, run.active():
            return use(observed, run)

    def register(self, report: TrainReport, pinned: Pinned, progress: Progress | None = None) -> TrainReport:
        """Register the version that `build` has stored; return the report with it."""
        return self._registered(self._bundles.load(report.digest), pinned, report, progress or _nobody)

    def _pin(self, model: Model, commit: DatasetCommit | None = None) -> Pinned:
        return pin(model, self._lake, self._snapshots, self._clock, self._root, commit=commit)

    def _pinned_as(self, model: Model, begun: Begun) -> Pinned:
        """Pin the data of a run that another process began.

        Raises:
            Conflict: The project's files are not those with which it began.
        """
        pinned = self._pin(model, self._snapshots.get(begun.commit))
        if pinned.files != begun.files:
            raise Conflict(
                f"The project's files changed since run {begun.run_id} began, so its ranks would not train alike.",
                fix="train again, and leave the files alone meanwhile; on other machines, copy the same files there.",
            )
        return pinned

    def _build(
        self,
        model: Model,
        pinned: Pinned,
        run: Run,
        since: int | None,
        until: int | None,
        share: float,
        without: Sequence[Without],
        stored: StoredRead | None,
        imported: ModuleFiles,
        tell: Progress,
    ) -> tuple[Bundle, TrainReport]:
        """Observe, fit, convert, seal and store."""
        begun = time.monotonic()
        tell("read the features", 0.05)
        observed = self._observe(model, pinned, since, until, share, without, stored)
        if stored is not None:
            run.set_tags(stored.tags)
            run.log_text(STATEMENT, stored.statement)
        findings = check(observed, run)
        fitted = fit(observed, run, tell)
        converted = convert(fitted, run, tell)
        tell("seal", 0.9)
        bundle = pack(observed, converted, run.id, self._key, self._clock.now())
        run.log_param("digest", bundle.digest)
        tell("store", 0.95)
        self._bundles.save(bundle)
        notes = [*observed.notes, *self._changed(imported, run)]
        return bundle, TrainReport(
            model=model.name,
            version="",
            digest=bundle.digest,
            run_id=run.id,
            training_rows=len(observed.data.train),
            holdout_rows=len(observed.data.holdout),
            metrics=converted.metrics,
            baseline=fitted.baseline,
            seconds=time.monotonic() - begun,
            findings=findings,
            undefined=undefined(model, observed.data, converted.metrics),
            threshold=bundle.manifest.extra.get(THRESHOLD, {}).get("value"),
            left_out=dict(observed.everything.left_out),
            notes=notes,
        )

    def _registered(self, bundle: Bundle, pinned: Pinned, report: TrainReport, tell: Progress) -> TrainReport:
        self._tracking.finish(report.run_id, "FINISHED", self._clock.now())
        version = self._register(bundle, pinned)
        tell("done", 1.0)
        return replace(report, version=version)

    def inspect(
        self,
        model: Model,
        purpose: str,
        look: Callable[[Observed, Run, Progress], T],
        *,
        since: int | None = None,
        until: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[str, T]:
        """Look at the rows in `[since, until)` that `train` would use, within a run that registers no version.

        Args:
            purpose: What for; a tag of the run.
            look: Returns what it found, given the rows, the run to record it in, and what to report progress to.

        Returns:
            The id of the run, and what was found.
        """
        check_declared(model)
        tell = progress or _nobody
        tell("pin the data", 0.0)
        pinned = pin(model, self._lake, self._snapshots, self._clock, self._root)
        with self._start(model, pinned) as run:
            run.set_tag(PURPOSE, purpose)
            log_inputs(run, model, pinned, since, until)
            tell("read the features", 0.05)
            observed = self._observe(model, pinned, since, until)
            with run.aside(purpose):
                found = look(observed, run, lambda stage, share: tell(stage, 0.1 + 0.9 * share))
        self._tracking.finish(run.id, "FINISHED", self._clock.now())
        tell("done", 1.0)
        return run.id, found

    def observe_without(self, observed: Observed, without: Sequence[Without]) -> Observed:
        """Return what was observed, as if some rows had never been ingested.

        Raises:
            Invalid, InvalidData: The model's data has no such rows, or too few others.
        """
        return self._observe(observed.model, observed.pinned, observed.since, observed.until, without=without)

    def scan(self, observed: Observed, table: str) -> TableScan:
        """Return a scan of a table as it was observed."""
        return pinned_scan(self._lake, observed.pinned.commit, table)

    def _start(self, model: Model, pinned: Pinned) -> Run:
        tags = {**process_tags(), **pinned.tags, "seed": str(model.seed)}
        run_id = self._tracking.start(model.name, tags, self._clock.now())
        name_work(Subject(RUN, run_id, model=model.name))
        run = Run(self._tracking, run_id, self._clock, seed=model.seed, system_every_s=_SYSTEM_EVERY_S)
        run.withheld = personal_sources(model)
        return run

    def _observe(
        self,
        model: Model,
        pinned: Pinned,
        since: int | None,
        until: int | None,
        share: float = 1.0,
        without: Sequence[Without] = (),
        stored: StoredRead | None = None,
    ) -> Observed:
        scan: Scan = partial(pinned_scan, self._lake, pinned.commit)
        notes: list[str] = []
        if without:
            scan = kept = remaining(read_by(model), scan, without)
            notes += left_out_rows(kept.counts)
        table, left_out = labelled_observations(model, scan, since=since, until=until, share=share, stored=stored)
        everything, held_out = training_set(model, table, left_out)
        between = table.num_rows - sum(map(len, (everything.train, everything.validation, everything.holdout)))
        if left_out.total:
            notes.append(f"{left_out}.")
        if between:
            notes.append(f"{between:,} labelled observations lie in the embargo between parts.")
        data = everything.only([name for name in everything.dtypes if name in model.columns])
        return Observed(model, pinned, since, until, everything, data, held_out, notes, [*map(str, without)])

    def _changed(self, imported: ModuleFiles, run: Run) -> list[str]:
        """Tag the run with the project's files that changed after they were imported; return a note on them."""
        changed = ", ".join(str(file.relative_to(self._root)) for file in changed_files(imported))
        if not changed:
            return []
        run.set_tag(CODE_CHANGED, changed[:_LONGEST_CHANGED])
        return [f"Files changed after they were imported, so the exact code is unknown: {changed}."]

    def _register(self, bundle: Bundle, pinned: Pinned) -> str:
        """Register the bundle as the model's next version, in one step, and return the version."""
        manifest = bundle.manifest
        lineage = {
            "dataset_commit": manifest.dataset_commit,
            "code_version": manifest.code_version,
            "features_digest": manifest.features_digest,
            "files_digest": pinned.files,
        }
        made = self._versions.register(manifest.model, bundle.digest, manifest.run_id, lineage, self._clock.now())
        self._tracking.log(manifest.run_id, tags={"version": made.version})
        return made.version


def _nobody(_stage: str, _share: float) -> None:
    """Ignore progress."""
