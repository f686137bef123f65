"""Features as a device computes them: typed operations in order, with the offsets of their time zones.

All types are resolved here, by the rules of `core.expr.types`; a device only executes. Its own zone database is not
used, so that it computes what training computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.types import Typed, resolve
from mainspring.core.expr.zones import offsets_of
from mainspring.core.schema import DType, Schema
from mainspring.features.functions.model import RequestFunction
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, Observations, RequestFeatures, views_of

FORMAT = 1

_FLOATS = (DType.Float32, DType.Float64)
_WIDE = (DType.Int64, DType.Timestamp, DType.Duration)
_NAMED = 6

Find = Callable[[str], int]  # name of a column -> the step that gives its value


@dataclass(frozen=True, slots=True)
class Program:
    """Features for a device.

    Attributes:
        inputs: What a row holds: the fields of the request, and stored features by their full names -> type.
        stored: The stored features among them.
        steps: The operations, each after its arguments.
        features: Full name -> step.
    """

    inputs: Mapping[str, str]
    stored: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...]
    features: Mapping[str, int]
    zones: tuple[str, ...]

    def encode(self) -> bytes:
        """Return `features.json`."""
        offsets = {zone: offsets_of(zone) for zone in self.zones}
        document = {
            "format": FORMAT,
            "inputs": self.inputs,
            "zones": {
                zone: {"instants": list(each.instants), "offsets": list(each.offsets)} for zone, each in offsets.items()
            },
            "steps": self.steps,
            "features": self.features,
        }
        return msgspec.json.encode(document)


def to_json(value: Any, dtype: DType) -> Any:
    """Return a value for a package's JSON: integers of 64 bits, and floats that are not finite, as texts."""
    if value is None or dtype in (DType.String, DType.Boolean):
        return value
    if dtype in _WIDE:
        return str(value)
    if dtype in _FLOATS:
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return int(value)


class Programmer:
    """Builds a program, in which what several features compute is one step."""

    def __init__(self) -> None:
        self.inputs: dict[str, str] = {}
        self.stored: list[str] = []
        self._steps: list[Mapping[str, Any]] = []
        self._known: dict[bytes, int] = {}
        self._zones: dict[str, None] = {}

    def read(self, name: str, dtype: str, *, stored: bool = False) -> int:
        """Return the step that reads an input."""
        if name not in self.inputs:
            self.inputs[name] = dtype
            if stored:
                self.stored.append(name)
        return self._step({"op": "column", "dtype": dtype, "args": (), "name": name})

    def compute(self, expression: Node, schema: Schema, find: Find) -> int:
        """Return the step that gives an expression's value.

        Args:
            schema: Type of each column that the expression reads.
            find: Returns the step of a column.
        """
        return self._compile(resolve(expression, schema), find)

    def program(self, features: Mapping[str, int]) -> Program:
        return Program(self.inputs, tuple(self.stored), tuple(self._steps), features, tuple(self._zones))

    def _compile(self, typed: Typed, find: Find) -> int:
        if typed.operation == "column":
            return find(typed.name)
        step: dict[str, Any] = {
            "op": typed.operation,
            "dtype": typed.dtype.value,
            "args": tuple(self._compile(argument, find) for argument in typed.arguments),
        }
        if typed.operation == "literal":
            step["value"] = to_json(typed.value, typed.dtype)
        elif typed.operation in ("clip", "one_of"):
            step["options"] = [to_json(option, typed.arguments[0].dtype) for option in typed.options]
        elif typed.operation == "slice":
            step["options"] = typed.options
        elif typed.operation in ("time_part", "time_start"):
            step |= {"name": typed.name, "zone": typed.zone}
            self._zones[typed.zone] = None
        return self._step(step)

    def _step(self, step: Mapping[str, Any]) -> int:
        key = msgspec.json.encode(step, order="sorted")
        if key not in self._known:
            self._known[key] = len(self._steps)
            self._steps.append(step)
        return self._known[key]


def program_of(
    names: Sequence[str], groups: Sequence[FeatureGroup], observations: Observations, *, stored_as_inputs: bool
) -> Program:
    """Return the program of a model's features.

    Args:
        names: Full names of the features that the model takes.
        groups: The bundle's feature definitions.
        stored_as_inputs: Whether stored features become inputs of each row; else they are refused.

    Raises:
        Invalid: A feature needs the store; the message names all that do.
        Corrupt: The definitions lack a feature.
    """
    programmer = Programmer()
    found = _Found(groups, observations, programmer)
    features = {name: found.step(name) for name in names}
    if programmer.stored and not stored_as_inputs:
        shown = ", ".join(programmer.stored[:_NAMED])
        more = len(programmer.stored) - _NAMED
        raise Invalid(
            f"{len(programmer.stored)} features need the store, which a device does not have: {shown}"
            f"{f' and {more} more' if more > 0 else ''}.",
            fix="give --stored-as-inputs, and their values with each row; or train a model without them.",
        )
    return programmer.program(features)


def plain_program(columns: Mapping[str, str]) -> Program:
    """Return the program of a model whose columns, or tensors, are the inputs themselves.

    Args:
        columns: Name -> type; `tensor` for one.
    """
    programmer = Programmer()
    return programmer.program({name: programmer.read(name, dtype) for name, dtype in columns.items()})


class _Found:
    """Steps of the features of some groups, by their full names."""

    def __init__(self, groups: Iterable[FeatureGroup], observations: Observations, programmer: Programmer) -> None:
        kept = list(groups)
        self._views: dict[str, FeatureView] = {view.name: view for view in views_of(kept)}
        self._requests = {group.name: group for group in kept if isinstance(group, RequestFeatures)}
        self._fields = observations.source.columns
        self._programmer = programmer

    def step(self, name: str) -> int:
        group, _, feature = name.partition(".")
        if not feature:
            return self._programmer.read(name, self._fields[name].value)
        if group in self._views:
            return self._of_view(self._views[group], feature)
        request = self._requests.get(group)
        if request is None or feature not in request.features:
            raise Corrupt(f"The bundle's feature definitions lack {name!r}.", fix="train the model again.")
        if isinstance(request, RequestFunction):
            raise Invalid(
                f"{name} is computed by the Python function {request.function.code}, which a device does not run.",
                fix="leave it out of the model, or write it as an expression.",
            )
        return self._programmer.compute(request.features[feature], request_schema(request, self._fields), self.step)

    def _of_view(self, view: FeatureView, feature: str) -> int:
        layout = layout_of(view)
        if feature in view.derived:
            return self._programmer.compute(
                view.derived[feature], layout.stored, lambda name: self._of_view(view, name)
            )
        return self._programmer.read(f"{view.name}.{feature}", layout.dtype(feature).value, stored=True)
