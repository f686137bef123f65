"""Optimisation of a version: variants made and measured, one chosen under the gates, registered as a version."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mainspring.core.environment import set_variable
from mainspring.core.errors import Invalid, NotConvertible, Unavailable
from mainspring.cost import usage
from mainspring.cost.budgets.declaring import QUEUE
from mainspring.deploy.edge.converting import in_onnx
from mainspring.operations.auditing import begun
from mainspring.operations.budgets.acting import check_hold
from mainspring.operations.cost.teams import charging
from mainspring.operations.models.curating import expect_kept, find
from mainspring.operations.optimise.agreeing import Agreeing, Encoding
from mainspring.operations.optimise.choosing import COSTS, choose, on_front
from mainspring.operations.optimise.energy import energy_source
from mainspring.operations.optimise.labelled import STUDENTS, Labelled
from mainspring.operations.optimise.model import MADE, PURPOSE, REPORT, OptimiseReport
from mainspring.operations.optimise.subject import Progress, Subject, Wish
from mainspring.operations.optimise.work import Work, names_known
from mainspring.project import Project
from mainspring.registry import lineage, runs
from mainspring.registry.bundles import GOLDEN, HOLDOUT, TOKENIZER
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.registry.processes import process_tags
from mainspring.registry.runs import ERROR, error_text

# As of training: threads of OpenMP that wait do not spin.
set_variable("OMP_WAIT_POLICY", "PASSIVE", default=True)

_CPU_INFO = Path("/proc/cpuinfo")
_CUDA = "CUDAExecutionProvider"
_LEAST_DEVICE = 64 << 20
_NO_GRAPH: Mapping[str, str] = {
    "function": "its model is a function of the project's code",
    "graph": "it is a graph of other models: optimise each of them",
    "lora": "it is an adapter of a language model's weights",
    "answers": "it is a chain of answers",
}


def optimise(
    project: Project,
    reference: str,
    wish: Wish,
    *,
    within: float = 0.01,
    chosen: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> OptimiseReport:
    """Make and measure variants of a version, and register the chosen one as a version. Nothing is promoted.

    Args:
        wish: Its target is `cpu`, which takes the fastest for one row; `edge`, the smallest that a device runs; or
            `cuda`, the fastest for a batch.
        within: Largest loss of the metric, as a share of the parent's.
        chosen: A variant to take although another is cheaper, or it loses more.
        dry_run: Whether to register neither a run nor a version.

    Raises:
        NotFound: There is no such version or variant.
        NotConvertible: The model is no graph.
        Invalid: There are no rows to judge by, or an argument is out of its range.
        Unavailable: This machine has no device of the target.
        BudgetExceeded: A budget holds optimisations back.
    """
    begun_at, tell = time.monotonic(), progress or (lambda _stage, _share: None)
    _check(wish, within)
    providers = _providers(wish.target)
    version = find(project, reference)
    expect_kept(project, version)
    parent = project.bundles.load(version.digest)
    with _charged(project, version.model), begun(project, "optimise", f"model/{version.model}") as done:
        tell("convert", 0.0)
        base, subject = _opened(project, parent, f"{version.model}:{version.version}", wish)
        offered = () if isinstance(subject, Encoding) else providers
        found, bundles = Work(project, parent, base, subject, wish, offered).measured(tell)
        table = on_front(found, wish.target)
        metric, higher = subject.metric
        allowed = within * abs(next(each.quality.value for each in table if each.quality is not None))
        picked, why = choose(table, wish.target, allowed, chosen)
        report = OptimiseReport(
            model=version.model,
            version=version.version,
            target=wish.target,
            machine=_machine(),
            providers=providers,
            metric=metric,
            higher_is_better=higher,
            within=within,
            held_out_rows=subject.rows,
            judged_on=subject.judged_on,
            energy="not read for a device" if wish.target == "edge" else energy_source(gpu=wish.target == "cuda"),
            variants=tuple(msgspec.structs.replace(each, chosen=each.name == picked) for each in table),
            chosen=picked,
            why=why,
            run_id=None,
            registered=None,
            seconds=time.monotonic() - begun_at,
        )
        if not dry_run:
            report = _recorded(project, version, report, subject, None if picked is None else bundles[picked])
        registered = report.registered or "none"
        done(f"version {version.version} for {wish.target}: {picked or 'nothing'} chosen, {registered} made")
    tell("done", 1.0)
    return report


@contextmanager
def _charged(project: Project, model: str) -> Iterator[None]:
    """Context of an optimisation that its payers are charged for, unless a budget holds it back."""
    with charging(project, usage.RUN, model):
        check_hold(project, QUEUE, f"The optimisation of {model}", model)
        with project.metering.of(usage.Subject(usage.RUN, f"optimisation of {model}", model=model)):
            yield


def _check(wish: Wish, within: float) -> None:
    known = names_known(STUDENTS)
    unknown = sorted(set(wish.only) - known)
    if unknown:
        raise Invalid(f"There is no variant {unknown[0]!r}.", fix=f"choose of {', '.join(sorted(known))}.")
    if not 0 <= within < 1:
        raise Invalid(f"The largest loss {within:g} is not a share.", fix="give --within 0.01, for example.")
    if wish.epochs is not None and wish.epochs < 1:
        raise Invalid(f"A network cannot be trained for {wish.epochs} epochs.", fix="give --epochs 3, for example.")
    if wish.device_memory < _LEAST_DEVICE:
        raise Invalid(
            f"ONNX Runtime alone takes more than {wish.device_memory >> 20} MiB.",
            fix=f"give --device-memory {_LEAST_DEVICE >> 20} or more.",
        )


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


def _opened(project: Project, parent: Bundle, name: str, wish: Wish) -> tuple[Bundle, Subject]:
    """Return a version in ONNX, and how its variants are judged."""
    manifest = parent.manifest
    if manifest.flavour in _NO_GRAPH:
        why = _NO_GRAPH[manifest.flavour]
        raise NotConvertible(f"{name} has no graph to optimise: {why}.", fix="optimise another version.")
    if not manifest.tensors:
        if any(file not in parent.files for file in (HOLDOUT, GOLDEN)):
            raise Invalid(
                f"{name} has no held-out rows with labels, by which variants are judged.",
                fix="optimise a version that `mainspring train` made.",
            )
        if wish.rows is not None:
            raise Invalid(f"{name} has held-out rows, by which variants are judged.", fix="omit --rows.")
        base = in_onnx(parent, name)
        return base, Labelled(project, parent, base)
    if TOKENIZER in parent.files and not manifest.extra.get("pairs"):
        if wish.target == "cuda":
            raise Invalid(f"{name} is an encoder of texts, which runs on the processor.", fix="give --for cpu.")
        return parent, Encoding(project, parent, wish.rows)
    base = in_onnx(parent, name)
    return base, Agreeing(project, base, wish.rows)


def _recorded(
    project: Project, version: ModelVersion, report: OptimiseReport, subject: Subject, variant: Bundle | None
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
            report = msgspec.structs.replace(report, registered=_register(project, version, report, subject, variant))
        tracking.log_artefact(run_id, REPORT, msgspec.json.encode(report))
    except BaseException as error:
        tracking.log(run_id, tags={ERROR: error_text(error)})
        tracking.finish(run_id, "FAILED", now())
        raise
    tracking.finish(run_id, "FINISHED", now())
    return report


def _register(
    project: Project, version: ModelVersion, report: OptimiseReport, subject: Subject, variant: Bundle
) -> str:
    chosen = next(each for each in report.variants if each.chosen)
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
    origin = {lineage.PARENT: version.digest, MADE: chosen.name, "optimised_for": report.target}
    made = subject.register(variant, how, origin)
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
