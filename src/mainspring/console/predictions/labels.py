"""The labels of one prediction, joined exactly as the monitors join them."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import format_instant
from mainspring.features.model import Observations
from mainspring.ledger.model import Prediction
from mainspring.project import Project
from mainspring.training.label import Label as Declared
from mainspring.training.label import label_keys


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
