"""Inputs of a model, by its declaration alone: its features with their types, and the type of its label."""

from __future__ import annotations

from collections.abc import Collection

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.features.model import FeatureGroup, views_of
from mainspring.features.types import feature_dtype
from mainspring.training.frames import check_feature_types
from mainspring.training.model import Model


def check_declared(model: Model) -> None:
    """Raise if no data could be trained on: `apply` and `train` know it before any is read.

    Raises:
        Invalid: A feature, or the label, is of a type that the model cannot take.
    """
    feature_types(model, (*model.columns, *model.baseline_columns))
    check_label(model)


def personal_sources(model: Model) -> str:
    """Return in words which of the sources that the model reads identify people; empty where none does."""
    views = views_of(all_groups(model))
    sources = [model.observations.source, model.label.source, *(view.source for view in views)]
    names = sorted({source.name for source in sources if source.pii})
    return f"the model reads {', '.join(names)}, with columns marked pii" if names else ""


def check_label(model: Model) -> DType:
    """Return the type of the model's label.

    Raises:
        InvalidData: It is no type of label of the model's task.
    """
    dtype = model.label.source.columns[model.label.column]
    if dtype == DType.Timestamp or (dtype == DType.String and model.task != "multiclass"):
        labels = {
            "binary": "a Boolean, or 0 and 1",
            "multiclass": "a String or a whole number",
            "regression": "a number",
        }
        raise InvalidData(
            f"Label {model.label.name} is a {dtype!r}, which is no label of the task {model.task!r}.",
            fix=f"name a column that is {labels[model.task]}, or another task.",
        )
    return dtype


def feature_types(model: Model, columns: Collection[str]) -> dict[str, DType]:
    """Return full name -> type of those features of the model and its baseline that are among `columns`, in order.

    Raises:
        Invalid: One is of a type that no model takes.
    """
    request = model.observations.source.columns
    found = {
        full_name: feature_dtype(group, name, request)
        for group in all_groups(model)
        for name, full_name in zip(group.names, group.columns, strict=True)
        if full_name in columns
    }
    check_feature_types(found)
    return found


def all_groups(model: Model) -> list[FeatureGroup]:
    """Return the groups of the model and of its baseline, each once."""
    return list({group.name: group for group in (*model.features, *model.baseline)}.values())
