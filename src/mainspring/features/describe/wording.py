"""A feature's definition as a short formula: `mean(dep_delay > 15)`, `late / departures`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mainspring.core.errors import MainspringError
from mainspring.core.expr import Call, Cast, Column, Literal, Node, TimePart
from mainspring.core.expr.render import render
from mainspring.core.schema import DType
from mainspring.core.time import format_duration
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView

# Binary functions: operator and precedence.
_INFIX = {
    "or": ("or", 1), "and": ("and", 2), "eq": ("=", 4), "ne": ("≠", 4), "lt": ("<", 4), "le": ("≤", 4), "gt": (">", 4),
    "ge": ("≥", 4), "add": ("+", 5), "sub": ("−", 5), "mul": ("×", 6), "div": ("/", 6),
}  # fmt: skip
_NOT, _WHOLE = 3, 9
_DEEPEST = 60


def definition(view: FeatureView, feature: str) -> str:
    """Return the formula of a feature, without its window, filter and TTL."""
    if feature in view.derived:
        return wording(view.derived[feature])
    aggregation = view.features[feature]
    which = aggregation.share if aggregation.nth is None else aggregation.nth
    said = ["" if aggregation.of is None else wording(aggregation.of), "" if which is None else f"{which:g}"]
    return f"{aggregation.kind}({', '.join(filter(None, said))})"


def wording(expr: Node) -> str:
    """Return an expression in the notation of a formula, with bare column names."""
    return _worded(expr, 0)[0]


def _worded(expr: Node, depth: int) -> tuple[str, int]:
    """Return the text and its precedence."""
    if depth > _DEEPEST:
        return "…", _WHOLE
    if isinstance(expr, Column):
        return expr.name, _WHOLE
    if isinstance(expr, Literal):
        return _literal(expr), _WHOLE
    if isinstance(expr, Cast):
        return f"{expr.dtype.value}({_worded(expr.argument, depth + 1)[0]})", _WHOLE
    if isinstance(expr, TimePart):
        return f"{expr.part}({_worded(expr.argument, depth + 1)[0]}, {expr.zone})", _WHOLE
    if isinstance(expr, Call):
        return _call(expr, depth + 1)
    return render(expr), _WHOLE


def _literal(literal: Literal) -> str:
    value = literal.value
    if value is None:
        return "null"
    if literal.dtype is DType.Duration and isinstance(value, int):
        return format_duration(value)
    return json.dumps(value, ensure_ascii=False)


def _call(call: Call, depth: int) -> tuple[str, int]:
    worded = [_worded(argument, depth) for argument in call.arguments]
    if call.function in _INFIX and len(worded) == 2:
        sign, level = _INFIX[call.function]
        left = _held(*worded[0], level)
        right = _held(*worded[1], level + 1)  # a - (b - c) keeps its parentheses
        return f"{left} {sign} {right}", level
    if call.function == "neg":
        return f"−{_held(*worded[0], 7)}", 7
    if call.function == "not":
        return f"not {_held(*worded[0], _NOT)}", _NOT
    if call.function == "is_null":
        return f"{_held(*worded[0], 5)} is null", 4
    if call.function == "one_of":
        return f"{_held(*worded[0], 5)} in [{', '.join(text for text, _ in worded[1:])}]", 4
    if call.function == "when" and len(worded) == 3:
        return f"{worded[1][0]} if {worded[0][0]} else {worded[2][0]}", 0
    return f"{call.function}({', '.join(text for text, _ in worded)})", _WHOLE


def _held(text: str, level: int, least: int) -> str:
    return text if level >= least else f"({text})"


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """One feature. `over` is its window, or the TTL of a last value; `default` the value of an empty window."""

    name: str
    type: str
    definition: str
    where: str = ""
    over: str = ""
    default: float | None = None
    description: str = ""


def definition_rows(view: FeatureView) -> list[DefinitionRow]:
    """Return the view's features, in the order of declaration."""
    return [_stored(view, name) if name in view.features else _derived(view, name) for name in view.names]


def _stored(view: FeatureView, name: str) -> DefinitionRow:
    feature = view.features[name]
    over = format_duration(feature.window) if feature.window is not None else ""
    if feature.ttl is not None:
        over = f"at most {format_duration(feature.ttl)} old"
    return DefinitionRow(
        name,
        _type(view, name),
        definition(view, name),
        "" if feature.where is None else wording(feature.where),
        over,
        0 if feature.kind == "count" else feature.default,
        feature.description,
    )


def _derived(view: FeatureView, name: str) -> DefinitionRow:
    return DefinitionRow(name, _type(view, name), definition(view, name))


def _type(view: FeatureView, name: str) -> str:
    try:
        return feature_dtype(view, name).name
    except MainspringError:  # a view declared in a notebook, which was never checked
        return "?"
