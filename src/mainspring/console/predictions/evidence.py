"""Provenance of one prediction: inputs, model, run, data and label. Missing parts are always named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mainspring.console.endpoints.live import put_live
from mainspring.console.predictions.percentile import Place, places
from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import format_instant
from mainspring.data.model import DatasetCommit
from mainspring.features.model import Observations, shown_status
from mainspring.ledger.model import Prediction, Value
from mainspring.operations.prediction import reveal
from mainspring.project import Project
from mainspring.registry.model import AliasMove, Bundle, Manifest, ModelVersion, RunRecord
from mainspring.security.model import Principal
from mainspring.training.label import Label as Declared
from mainspring.training.label import label_keys

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of the model as it was. `status` is None for a feature computed from the request. A `withheld` feature
    identifies a person and has no value here.
    """

    name: str  # without its group
    value: Value
    status: str | None
    dtype: str | None
    place: Place | None
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The features of one view, or of one group of request features."""

    name: str
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One prediction and its provenance; `missing` has a line for each part that could not be read."""

    prediction: Prediction
    groups: tuple[Group, ...]
    labels: tuple[Label, ...]
    version: ModelVersion | None
    put_live: AliasMove | None
    manifest: Manifest | None
    run: RunRecord | None
    commit: DatasetCommit | None
    moments: frozenset[str]  # the keys and request fields that are instants
    hidden_keys: tuple[str, ...]  # which identify a person
    hidden_fields: tuple[str, ...]  # of the request
    missing: tuple[str, ...]

    @property
    def label(self) -> Label:
        """The label, or the first of several."""
        return self.labels[0]

    @property
    def replayed(self) -> bool:
        """True if the prediction is dated before its own model was made: a replayed clock dated it.

        Versions, runs and commits are dated by the machine's clock, so an age beside them would mix the two.
        """
        return self.manifest is not None and self.prediction.at < self.manifest.created_at

    @property
    def inputs(self) -> int:
        """Number of inputs that the model received, shown or not."""
        return sum(len(group.features) for group in self.groups)

    @property
    def statuses(self) -> dict[str, int]:
        """Number of stored features by status, as it is shown."""
        counted: dict[str, int] = {}
        for name, status in self.prediction.statuses.items():
            shown = shown_status(status, self.prediction.features.get(name))
            counted[shown] = counted.get(shown, 0) + 1
        return counted


def evidence(project: Project, prediction_id: str, *, reveal_to: Principal | None = None) -> Evidence:
    """Return a prediction with its provenance.

    Args:
        reveal_to: Caller to whom personal values are shown, with an event in the audit log.

    Raises:
        NotFound: It was never logged.
        Denied: This caller may not see personal values.
        Conflict: Its endpoint does not log them.
    """
    if reveal_to is None:
        prediction = project.predictions.find(prediction_id)
    else:
        prediction = reveal(project, prediction_id, reveal_to)
    missing: list[str] = []

    def read(what: str, of: Callable[[], _T]) -> _T | None:
        try:
            return of()
        except MainspringError as error:
            missing.append(f"{what}: {error}")
            return None

    bundle = read("The bundle", lambda: project.bundles.load(prediction.digest))
    version = read("The version", lambda: project.versions.get(prediction.model, prediction.version))
    run_id = bundle.manifest.run_id if bundle else version.run_id if version else None
    commit_id = bundle.manifest.dataset_commit if bundle else None
    declared = project.definitions.endpoints.get(prediction.endpoint)
    alias = declared.reference if declared else ""
    inputs = {each.name for each in bundle.manifest.inputs} if bundle else set(prediction.features)
    hidden = [name for name in prediction.personal if name not in inputs and "." not in name]
    keys = _keys(project, prediction.model)
    return Evidence(
        prediction=prediction,
        groups=_groups(prediction, bundle),
        labels=labels_of(project, prediction),
        version=version,
        put_live=put_live(project, prediction.model, alias, prediction.version),
        manifest=bundle.manifest if bundle else None,
        run=read("The run", lambda: project.tracking.get(run_id)) if run_id else None,
        commit=read("The dataset commit", lambda: project.snapshots.get(commit_id)) if commit_id else None,
        moments=_moments(project, prediction.model),
        hidden_keys=tuple(name for name in hidden if name in keys),
        hidden_fields=tuple(name for name in hidden if name not in keys),
        missing=tuple(missing),
    )


def _moments(project: Project, model: str) -> frozenset[str]:
    definition = project.definitions.models.get(model)
    columns = definition.observations.source.columns if definition else {}
    return frozenset(name for name, dtype in columns.items() if dtype is DType.Timestamp)


def _keys(project: Project, model: str) -> set[str]:
    definition = project.definitions.models.get(model)
    return {key for entity in definition.observations.keys for key in entity.keys} if definition else set()


def _groups(prediction: Prediction, bundle: Bundle | None) -> tuple[Group, ...]:
    types = {each.name: each.dtype.value for each in bundle.manifest.inputs} if bundle else {}
    found = places(bundle, prediction.features) if bundle else {}
    hidden = [name for name in prediction.personal if name in types or "." in name]
    places_of = {name: place for place, name in enumerate(types)}
    groups: dict[str, list[Feature]] = {}
    for full in sorted([*prediction.features, *hidden], key=lambda name: places_of.get(name, len(places_of))):
        group, _, name = full.rpartition(".")
        value, status = prediction.features.get(full), prediction.statuses.get(full)
        feature = Feature(name, value, status, types.get(full), found.get(full), withheld=full in hidden)
        groups.setdefault(group or "Inputs", []).append(feature)
    return tuple(Group(name, tuple(features)) for name, features in groups.items())


@dataclass(frozen=True, slots=True)
class Label:
    """Ground truth of a prediction. `value` is None until the label arrives; `why` then explains its absence."""

    column: str | None
    value: bool | float | str | None
    arrived_at: int | None  # UTC epoch microseconds
    lag_us: int | None
    why: str | None


def labels_of(project: Project, prediction: Prediction) -> tuple[Label, ...]:
    """Return each of the prediction's labels as known now, at least one."""
    model = project.definitions.models.get(prediction.model)
    if model is None:
        why = f"the project no longer declares the model {prediction.model!r}"
        return (Label(None, None, None, None, why),)
    return tuple(_label_of(project, prediction, model.observations, each) for each in model.labels)


def _label_of(project: Project, prediction: Prediction, observations: Observations, label: Declared) -> Label:
    column = label.name
    try:
        needed = label_keys(observations, label)
    except MainspringError as error:
        return Label(column, None, None, None, str(error))
    if withheld := [key for key in needed if key in prediction.personal]:
        why = f"the label is joined by {', '.join(withheld)}, {prediction.withheld} because it identifies a person"
        return Label(column, None, None, None, why)
    if not prediction.keys:
        return Label(column, None, None, None, "requested with full inputs, so no label can be joined")
    try:
        found = _joined(project, prediction, observations, label)
    except NotFound:
        found = None
    except MainspringError as error:
        return Label(column, None, None, None, str(error))
    if found is None:
        return Label(column, None, None, None, _not_yet(label, prediction.at))
    value, lag = found
    if label.source.columns[label.column] is DType.Boolean:
        value = bool(value)
    return Label(column, value, prediction.at + lag, lag, None)


def _not_yet(label: Declared, at: int) -> str:
    if label.matures_us is None:
        return "the label has not arrived yet"
    return (
        f"the label matures at {format_instant(at + label.matures_us)}, once label rows of that time have been ingested"
    )


def _joined(
    project: Project, prediction: Prediction, observations: Observations, label: Declared
) -> tuple[float | str, int] | None:
    import pyarrow as pa

    from mainspring.ledger.columns import READ, to_batch
    from mainspring.monitoring.joins import join_labels, label_rows

    labels = label_rows([label], observations, project.lake.scan)
    row = pa.Table.from_batches([to_batch([prediction])]).select(list(READ))
    joined = join_labels(row, labels, project.clock.now()).to_pylist()
    return (joined[0]["label"], joined[0]["lag_us"]) if joined else None
