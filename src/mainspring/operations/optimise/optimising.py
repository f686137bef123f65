"""Optimisation of a version: variants made and measured, one chosen under the gates, registered as a version."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.environment import set_variable
from mainspring.core.errors import Corrupt, Invalid, MainspringError, NotConvertible, Unavailable
from mainspring.delivery.held_out import read_held_out
from mainspring.deploy.edge.converting import in_onnx
from mainspring.deploy.edge.golden import worst_difference
from mainspring.operations.auditing import begun
from mainspring.operations.models.adding import store_version
from mainspring.operations.models.curating import expect_kept, find
from mainspring.operations.optimise.bundling import answered, with_model
from mainspring.operations.optimise.choosing import COSTS, choose, on_front
from mainspring.operations.optimise.judging import judge_gates, metric_of, quality_of, side_by_side, with_metrics
from mainspring.operations.optimise.measuring import apart, costs
from mainspring.operations.optimise.model import MADE, PARENT, PURPOSE, REPORT, OptimiseReport, VariantReport
from mainspring.project import Project
from mainspring.registry import lineage, runs
from mainspring.registry.bundles import GOLDEN, HOLDOUT, MODEL
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.registry.processes import process_tags
from mainspring.registry.runs import ERROR, error_text
from mainspring.serving.plane.executor import ModelFailed
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_feeds, score_bundle
from mainspring.training.frames import Array, to_array, to_frame
from mainspring.training.model import Model
from mainspring.training.optimise.students import tree_student
from mainspring.training.optimise.variants import KINDS, Variant, kinds_for, variants
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import training_rows_again

if TYPE_CHECKING:
    import pyarrow as pa

# As of training: threads of OpenMP that wait do not spin.
set_variable("OMP_WAIT_POLICY", "PASSIVE", default=True)

CONVERTED = "onnx"  # name of the variant of a native model that is its own conversion
STUDENTS: Mapping[str, int] = {"student-64": 64, "student-16": 16}  # name -> boosted trees
_MOST_CALIBRATED, _MOST_TAUGHT = 1000, 50_000  # training rows
_HOW_PARENT, _HOW_CONVERTED = "the version itself", "trees of the library as an ONNX graph"
_CPU_INFO = Path("/proc/cpuinfo")
_CUDA = "CUDAExecutionProvider"
_NO_GRAPH: Mapping[str, str] = {
    "function": "its model is a function of the project's code",
    "graph": "it is a graph of other models: optimise each of them",
    "lora": "it is an adapter of a language model's weights",
    "answers": "it is a chain of answers",
}

Progress = Callable[[str, float], None]


def optimise(
    project: Project,
    reference: str,
    *,
    target: str = "cpu",
    only: Collection[str] = (),
    within: float = 0.01,
    chosen: str | None = None,
    dry_run: bool = False,
    memory: bool = True,
    progress: Progress | None = None,
) -> OptimiseReport:
    """Make and measure variants of a version, and register the chosen one as a version. Nothing is promoted.

    Args:
        target: `cpu` takes the fastest for one row, `edge` the smallest, `cuda` the fastest for a batch.
        only: Names of variants to make; by default all that its kind of model may have.
        within: Largest loss of the metric, as a share of the parent's.
        chosen: A variant to take although another is cheaper, or it loses more.
        dry_run: Whether to register neither a run nor a version.
        memory: Whether to measure the memory of each, in a process of its own.

    Raises:
        NotFound: There is no such version or variant.
        NotConvertible: The model is no graph.
        Invalid: It has no held-out rows, or an argument is out of its range.
        Unavailable: This machine has no device of the target.
    """
    begun_at, tell = time.monotonic(), progress or (lambda _stage, _share: None)
    _check(only, within)
    providers = _providers(target)
    version = find(project, reference)
    expect_kept(project, version)
    parent = project.bundles.load(version.digest)
    name = f"{version.model}:{version.version}"
    _check_parent(parent, name)
    with begun(project, "optimise", f"model/{version.model}") as done:
        work = _Work(project, parent, project.definitions.models.get(version.model), target, memory=memory)
        found, bundles = work.measured(name, only, tell)
        table = on_front(found, target)
        metric, higher = work.metric
        allowed = within * abs(next(each.quality.value for each in table if each.quality is not None))
        picked, why = choose(table, target, allowed, chosen)
        report = OptimiseReport(
            model=version.model,
            version=version.version,
            target=target,
            machine=_machine(),
            providers=providers,
            metric=metric,
            higher_is_better=higher,
            within=within,
            held_out_rows=read_held_out(parent).num_rows,
            variants=tuple(msgspec.structs.replace(each, chosen=each.name == picked) for each in table),
            chosen=picked,
            why=why,
            run_id=None,
            registered=None,
            seconds=time.monotonic() - begun_at,
        )
        if not dry_run:
            report = _recorded(project, version, report, None if picked is None else bundles[picked])
        done(
            f"version {version.version} for {target}: {picked or 'nothing'} chosen, {report.registered or 'none'} made"
        )
    tell("done", 1.0)
    return report


def _check(only: Collection[str], within: float) -> None:
    known = (CONVERTED, *KINDS, *STUDENTS)
    unknown = sorted(set(only) - {*known})
    if unknown:
        raise Invalid(f"There is no variant {unknown[0]!r}.", fix=f"choose of {', '.join(known)}.")
    if not 0 <= within < 1:
        raise Invalid(f"The largest loss {within:g} is not a share.", fix="give --within 0.01, for example.")


def _providers(target: str) -> tuple[str, ...]:
    import onnxruntime as ort

    if target not in COSTS:
        raise Invalid(f"There is no target {target!r}.", fix=f"choose of {', '.join(COSTS)}.")
    found = tuple(ort.get_available_providers())
    if target == "cuda" and _CUDA not in found:
        raise Unavailable(
            f"ONNX Runtime has no {_CUDA} here, so that nothing can be measured for cuda; it has {', '.join(found)}.",
            fix="run it on a machine with a GPU and onnxruntime-gpu, or give --for cpu.",
        )
    return found


def _check_parent(parent: Bundle, name: str) -> None:
    flavour = parent.manifest.flavour
    if flavour in _NO_GRAPH:
        raise NotConvertible(f"{name} has no graph to optimise: {_NO_GRAPH[flavour]}.", fix="optimise another version.")
    missing = [file for file in (HOLDOUT, GOLDEN) if file not in parent.files]
    if parent.manifest.tensors or missing:
        raise Invalid(
            f"{name} has no held-out rows with labels, by which variants are judged.",
            fix="optimise a version that `mainspring train` made.",
        )


class _Work:
    """Measurement of one version's variants."""

    def __init__(self, project: Project, parent: Bundle, declared: Model | None, target: str, *, memory: bool) -> None:
        self._project, self._parent, self._declared = project, parent, declared
        self._target, self._memory = target, memory
        self.metric = metric_of(declared, parent.manifest.task)

    def measured(
        self, name: str, only: Collection[str], tell: Progress
    ) -> tuple[list[VariantReport], dict[str, Bundle]]:
        """Return the reports of the parent and its variants, and the variants' bundles, not yet sealed."""
        tell("convert", 0.0)
        base = in_onnx(self._parent, name)
        made = list(self._variants(base.files[MODEL], only, tell))
        bundles = {each.name: with_model(base, each.content) for each in made if each.content}
        if base is not self._parent and (not only or CONVERTED in only):
            made.insert(0, Variant(CONVERTED, _HOW_CONVERTED, base.files[MODEL]))
            bundles[CONVERTED] = with_model(base, base.files[MODEL])
        bundles = {PARENT: self._parent, **bundles}
        reports: dict[str, VariantReport] = {}
        for number, each in enumerate((Variant(PARENT, _HOW_PARENT), *made)):
            tell(f"judge {each.name}", 0.3 + 0.3 * number / (len(made) + 1))
            try:
                reports[each.name] = self._report(each, bundles.get(each.name))
            except (Corrupt, ModelFailed) as error:  # the parent answers its own rows
                bundles.pop(each.name)
                reports[each.name] = VariantReport(name=each.name, how=each.how, why_not=error.what)
        tell("measure the cost", 0.6)
        known = costs(self._project, bundles, memory=self._memory)
        found = [msgspec.structs.replace(each, cost=known.get(name)) for name, each in reports.items()]
        return found, bundles

    def _variants(self, content: bytes, only: Collection[str], tell: Progress) -> Sequence[Variant]:
        fitting = kinds_for(content)
        names = tuple(each for each in fitting if not only or each in only)
        found = [
            Variant(each, KINDS[each].how, why_not="Networks have it, or trees; this model is of the other kind.")
            for each in KINDS
            if each in only and each not in fitting
        ]
        for each in variants(content, names, lambda: self._calibration):
            tell(f"made {each.name}", 0.3 * (len(found) + 1) / (len(found) + len(names)))
            found.append(each)
        return [*found, *self._students(only, tell)]

    def _students(self, only: Collection[str], tell: Progress) -> Iterator[Variant]:
        """Yield boosted trees that learn the parent's predictions for its training rows."""
        manifest, table = self._parent.manifest, None
        for name, trees in STUDENTS.items():
            if only and name not in only:
                continue
            tell(f"train {name}", 0.3)
            how = f"{trees} boosted trees that learn the version's predictions"
            try:
                table = table or self._training_rows(_MOST_TAUGHT)
                frame = to_frame(table, {each.name: each.dtype for each in manifest.inputs})
                wide, seed = manifest.extra.get("float64", ()), manifest.extra.get("seed", 0)
                predictions = score_bundle(self._parent, table)
                content = tree_student(
                    frame, predictions, manifest.inputs, manifest.outputs, manifest.task,
                    trees=trees, wide=wide, double=manifest.extra.get("answers") == "FP64", seed=seed,
                )  # fmt: skip
            except MainspringError as error:
                yield Variant(name, how, why_not=error.what)
            else:
                yield Variant(name, how, content)

    @cached_property
    def _calibration(self) -> dict[str, Array]:
        """Training rows as inputs of the graph."""
        manifest, table = self._parent.manifest, self._training_rows(_MOST_CALIBRATED)
        columns = {each.name: to_array(table.column(each.name), each.dtype) for each in manifest.inputs}
        base = in_onnx(self._parent, manifest.model)
        return artefact_feeds(Artefact("onnx", MODEL, base.files[MODEL]), columns, list(columns))

    def _training_rows(self, most: int) -> pa.Table:
        """Return rows that the version was trained on, with its features.

        Raises:
            NotConvertible: They are gone, or the project declares no such model.
        """
        project, manifest = self._project, self._parent.manifest
        try:
            commit = project.snapshots.get(manifest.dataset_commit)
            labels = project.definitions.model(manifest.model).labels
            scan = partial(pinned_scan, project.lake, commit)
            return training_rows_again(self._parent, labels, scan, most)
        except MainspringError as error:
            raise NotConvertible(f"Its training rows cannot be read: {error.what}") from error

    @cached_property
    def _limit(self) -> float:
        """How far a row's answers of the parent are apart, alone and in batches."""
        return apart(self._project, self._parent)

    def _report(self, each: Variant, bundle: Bundle | None) -> VariantReport:
        if bundle is None:
            return VariantReport(name=each.name, how=each.how, why_not=each.why_not)
        differs = self._limit if each.name == PARENT else apart(self._project, bundle)  # the first that loads it
        metric, higher = self.metric
        rows = side_by_side(bundle, self._parent, self._declared)
        other = rows.candidate if rows.other is None else rows.other
        why = ""
        if differs > self._limit:
            why = f"a row's answer alone differs by {differs:.2g} from its answer in a batch."
        failed: tuple[str, ...] = ()
        if self._declared is not None and each.name != PARENT:
            results = judge_gates(with_metrics(bundle, self._declared), self._declared)
            failed = tuple(str(result) for result in results if not result.passed)
        shape = len(rows), -1
        worst = worst_difference(rows.candidate.scores.reshape(shape), other.scores.reshape(shape))
        return VariantReport(
            name=each.name,
            how=each.how,
            why_not=why,
            quality=quality_of(rows, metric, higher=higher, declared=self._declared),
            apart=differs,
            worst=worst,
            gates_failed=failed,
        )


def _recorded(
    project: Project, version: ModelVersion, report: OptimiseReport, variant: Bundle | None
) -> OptimiseReport:
    """Record the report as the artefact of a run, and register the chosen variant; return it with both names."""
    now, tracking = project.wall.now, project.tracking
    run_id = tracking.start(version.model, {**process_tags(), runs.PURPOSE: PURPOSE}, now())
    try:
        report = msgspec.structs.replace(report, run_id=run_id)
        tracking.log(
            run_id,
            params={"version": version.version, "target": report.target, "chosen": report.chosen or "none"},
            metrics=[
                (f"{each.name}.{name}", value, 0, now())
                for each in report.variants
                if each.quality is not None and each.cost is not None
                for name, value in (
                    (report.metric, each.quality.value), ("p50_us", each.cost.p50_us), ("bytes", each.cost.bytes),
                )
            ],
        )  # fmt: skip
        if variant is not None:
            report = msgspec.structs.replace(report, registered=_register(project, version, report, variant))
        tracking.log_artefact(run_id, REPORT, msgspec.json.encode(report))
    except BaseException as error:
        tracking.log(run_id, tags={ERROR: error_text(error)})
        tracking.finish(run_id, "FAILED", now())
        raise
    tracking.finish(run_id, "FINISHED", now())
    return report


def _register(project: Project, version: ModelVersion, report: OptimiseReport, variant: Bundle) -> str:
    chosen = next(each for each in report.variants if each.chosen)
    own = answered(with_metrics(variant, project.definitions.models.get(version.model)))
    how = {
        "variant": chosen.name,
        "how": chosen.how,
        "target": report.target,
        "parent": version.digest,
        "parent_version": version.version,
        "largest_difference": chosen.worst,
        "metric": report.metric,
        "loss": None if chosen.quality is None else chosen.quality.loss,
        "held_out_rows": report.held_out_rows,
    }
    manifest = msgspec.structs.replace(
        own.manifest,
        run_id="",
        created_at=0,
        files={},
        tolerance=max(own.manifest.tolerance, float(chosen.worst or 0.0)),  # one step of 8 bits may fall otherwise
        extra={**own.manifest.extra, MADE: how},
    )
    origin = {lineage.PARENT: version.digest, MADE: chosen.name, "optimised_for": report.target}
    made, _ = store_version(project, manifest, own.files, origin)
    project.tracking.log(made.run_id, tags={"optimised_by": report.run_id or ""})
    return made.version


def _machine() -> str:
    """Return the processor's name."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()
