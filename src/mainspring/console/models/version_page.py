"""View model of one version: its lineage, the integrity of its bundle, and the decisions on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.console.models.decision_history import Happening, happenings
from mainspring.console.models.figures import record_of, runs_of
from mainspring.console.models.listing import Choose, serving, shares, state_of
from mainspring.console.models.reading import Verified, carded, verified
from mainspring.console.models.variants import Optimised, optimised
from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY
from mainspring.data.model import DatasetCommit
from mainspring.delivery.approving import counted, needed
from mainspring.delivery.gates import BASELINE
from mainspring.delivery.model import Evaluation
from mainspring.governance.model import Estimate
from mainspring.operations.models.curating import people
from mainspring.project import Project
from mainspring.registry.lineage import PARENT, Lineage, authors_of, lineage_of
from mainspring.registry.model import Approval, Deletion, Manifest, ModelVersion, Withdrawal
from mainspring.registry.searching import RunRow
from mainspring.stats.metrics import OWN_METRICS, higher_is_better

GRACE_US = 7 * DAY  # default grace period of `mainspring models gc`
LISTED = 50
_PATIENCE_S = 1.5  # wait for the intervals; the page shows the rest without them


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric on the held-out rows. The interval is known once the card is ready; `gate` is the metric's condition."""

    estimate: Estimate
    gate: str


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One version. `bundle` is the result of its verification; `lineage` is known after it."""

    version: ModelVersion
    newer: int | None
    older: int | None
    of: int
    authors: tuple[str, ...]
    run: RunRow | None
    bundle: Seen[Verified]
    lineage: Lineage | None
    commit: DatasetCommit | None  # if the project still has it
    files: tuple[File, ...]
    metrics: tuple[Metric, ...]
    intervals: Seen[tuple[Estimate, ...]]
    approvals: tuple[Approval, ...]
    withdrawn: tuple[Withdrawal, ...]
    approvers: tuple[str, ...]  # whose word counts
    needed: int
    evaluation: Evaluation | None  # the last one of its gates
    mark: Deletion | None
    serves: Mapping[str, float]
    children: tuple[ModelVersion, ...]
    of_children: int
    decided: tuple[Happening, ...]
    endpoints: tuple[str, ...]  # declared ones of its model
    optimised: Optimised | None  # its variants, if they were measured

    @property
    def state(self) -> str:
        """A key of `listing.STATES`."""
        return state_of(self.version, self.mark, self.serves)

    @property
    def goes_at(self) -> int | None:
        """Earliest time when `gc` with the default grace period removes it, UTC epoch microseconds."""
        return None if self.mark is None else self.mark.at + GRACE_US


def find_version(project: Project, model: str, number: str) -> ModelVersion:
    """Return a version by its number.

    Raises:
        NotFound: There is no such version, or `number` is not a number.
    """
    if not (number.isascii() and number.isdigit() and len(number) <= 12):
        raise NotFound(f"There is no version {number[:40]!r} of {model!r}.", fix=f"GET /api/models/{model} lists them.")
    return project.versions.get(model, str(int(number)))


def version_page(project: Project, looking: Looking, model: str, number: str, seen: Choose = list) -> VersionPage:
    """Return the page of a version.

    Args:
        seen: Returns those of some endpoints that the caller may see.

    Raises:
        NotFound: There is none.
    """
    version = find_version(project, model, number)
    everything = project.versions.all()
    numbers = sorted(int(each.version) for each in everything if each.model == model)
    place = numbers.index(int(version.version))
    run = runs_of(project, [version]).get(version.run_id)
    authors = authors_of(version, record_of(run))
    bundle = verified(project, looking, version)
    children = [each for each in everything if each.tags.get(PARENT) == version.digest]
    intervals = _intervals(project, looking, version) if bundle.found else Seen(bundle.ready, None, bundle.problem)
    approvals = project.approvals.of(model, version.version)
    return VersionPage(
        version=version,
        newer=numbers[place + 1] if place + 1 < len(numbers) else None,
        older=numbers[place - 1] if place else None,
        of=len(numbers),
        authors=authors,
        run=run,
        bundle=bundle,
        lineage=lineage_of(version, bundle.found.manifest, record_of(run), everything) if bundle.found else None,
        commit=_commit(project, bundle.found.manifest.dataset_commit) if bundle.found else None,
        files=_files(bundle.found),
        metrics=_metrics(project, model, bundle.found, intervals.found or ()),
        intervals=intervals,
        approvals=tuple(approvals),
        withdrawn=tuple(project.approvals.withdrawn(model, version.version)),
        approvers=counted(version, authors, approvals, people(project)),
        needed=needed(project.definitions.gates_of(model), project.settings.approvals),
        evaluation=next(iter(project.evaluations.newest(model, version.version)), None),
        mark=next((mark for mark in project.deletions.all() if _is(mark, version)), None),
        serves=shares(serving(project, seen).get(model, ()), version.version),
        children=tuple(children[:LISTED]),
        of_children=len(children),
        decided=_decided(project, version)[:LISTED],
        endpoints=tuple(seen(name for name, of in project.definitions.endpoints.items() if of.model_name == model)),
        optimised=optimised(project, version),
    )


def _is(mark: Deletion, version: ModelVersion) -> bool:
    return (mark.model, mark.version) == (version.model, version.version)


def _commit(project: Project, commit: str) -> DatasetCommit | None:
    try:
        return project.snapshots.get(commit) if commit else None
    except MainspringError:
        return None


def _files(found: Verified | None) -> tuple[File, ...]:
    if found is None:
        return ()
    return tuple(File(name, found.sizes[name], digest) for name, digest in sorted(found.manifest.files.items()))


def _intervals(project: Project, looking: Looking, version: ModelVersion) -> Seen[tuple[Estimate, ...]]:
    card = carded(project, looking, version, _PATIENCE_S)
    performance = card.found.performance if card.found else None
    return Seen(card.ready, performance.metrics if performance else None, card.problem)


def _metrics(project: Project, model: str, found: Verified | None, intervals: Sequence[Estimate]) -> tuple[Metric, ...]:
    """Return the metrics in the manifest, those with a gate first."""
    if found is None:
        return ()
    declared = project.definitions.models.get(model)
    gates = {gate.metric: str(gate).removeprefix(f"{gate.metric} ") for gate in (declared.gates if declared else ())}
    stated, around = found.manifest.metrics, {each.metric: each for each in intervals}
    metrics = []
    for name in sorted(stated, key=lambda name: (name not in gates, name)):
        if name.startswith(BASELINE):
            continue
        one = around.get(name)
        low, high = (one.low, one.high) if one else (None, None)
        baseline = stated.get(f"{BASELINE}{name}")
        estimate = Estimate(name, stated[name], low, high, baseline, _more_is_better(found.manifest, name))
        metrics.append(Metric(estimate, gates.get(name, "")))
    return tuple(metrics)


def _more_is_better(manifest: Manifest, name: str) -> bool:
    known = manifest.extra.get(OWN_METRICS, {})
    own: bool | None = known.get(
        name, known.get(name.rpartition(".")[0])
    )  # metric of one of several labels: rmse.minutes
    return (higher_is_better(name) if own is None else own) is not False


def _decided(project: Project, version: ModelVersion) -> tuple[Happening, ...]:
    """Return the decisions on this version, including alias moves away from it."""
    number = version.version
    return tuple(each for each in happenings(project, version.model) if number in (each.version, each.old))
