"""Conversion of rows of named values to an endpoint's tensors, and of its reply to predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mainspring.client.results import ModelInfo, Predictions, TensorInfo
from mainspring.core.errors import Invalid
from mainspring.core.nearest import meant
from mainspring.core.time import format_instant, from_datetime

Row = Mapping[str, Any]


def tensors_of(rows: Sequence[Row], model: ModelInfo) -> list[dict[str, Any]]:
    """Return one flat input per name, of shape (rows,).

    A name that a row lacks is null there. The server checks that all required inputs are present.

    Raises:
        Invalid: There are no rows, a name is not an input of the endpoint, or a value does not fit into a tensor.
    """
    if not rows:
        raise Invalid(f"There are no rows for {model.name!r}.", fix="send at least one.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = {each.name: each for each in _side(names, model)}
    made = []
    for name in names:
        if name not in known:
            raise Invalid(f"{model.name!r} does not take {name!r} beside {names[0]!r}.", fix=meant(name, known))
        values = [_plain(row.get(name), name) for row in rows]
        datatype = known[name].datatype
        if datatype == "INT64" and any(isinstance(value, str) for value in values):
            # An instant, as text; the server accepts text or integers, but one form for all rows.
            datatype = "BYTES"
            values = [format_instant(value) if isinstance(value, int) else value for value in values]
        made.append({"name": name, "datatype": datatype, "shape": [len(rows)], "data": values})
    return made


def _side(names: Sequence[str], model: ModelInfo) -> tuple[TensorInfo, ...]:
    """Return the keyed inputs or the full inputs: the side that has all names, else the one that has some.

    Raises:
        Invalid: Neither has any of the names.
    """
    keyed, features = ({each.name for each in side} for side in (model.keyed, model.inputs))
    for fits in (set(names).issubset, lambda side: not side.isdisjoint(names)):
        for side, tensors in ((keyed, model.keyed), (features, model.inputs)):
            if names and side and fits(side):
                return tensors
    first = names[0] if names else ""
    raise Invalid(f"{model.name!r} takes no {first!r}.", fix=meant(first, keyed or features))


def _plain(value: Any, name: str) -> Any:
    """Return a value in a form that JSON can represent. NaN becomes null, as everywhere in Mainspring."""
    if isinstance(value, datetime):
        return from_datetime(value)
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a NumPy scalar, without importing NumPy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise Invalid(f"{name!r} contains {value}, which JSON cannot represent.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise Invalid(
        f"{name!r} contains a {type(value).__name__}.", fix="send a number, text, True or False, or an instant."
    )


def predictions_of(endpoint: str, reply: Mapping[str, Any], rows: int) -> Predictions:
    """Return a reply's predictions, one per row."""
    parameters = reply.get("parameters") or {}
    outputs = {each["name"]: _by_row(each["data"], rows) for each in reply["outputs"]}
    ids = tuple(parameters.get("prediction_ids") or [""] * rows)
    return Predictions(
        endpoint=endpoint,
        version=str(reply.get("model_version", "")),
        ids=ids,
        outputs=outputs,
        statuses=parameters.get("feature_statuses") or {},
        unusual=tuple(parameters.get("unusual") or ()),
    )


def _by_row(data: list[Any], rows: int) -> list[Any]:
    if len(data) == rows:
        return data
    width = len(data) // rows
    return [data[start : start + width] for start in range(0, len(data), width)]
