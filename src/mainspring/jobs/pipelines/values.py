"""Values in a graph: constants, parameters, results of other steps, and comparisons of them. All are JSON-able data."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from mainspring.core.errors import Corrupt, Invalid
from mainspring.jobs.plain import Plain

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
Path = tuple[str | int, ...]  # keys and positions inside a JSON value


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is known when the pipeline is declared."""

    value: Plain


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the pipeline, or a part of it."""

    name: str
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a step, or a part of it. The result of a mapped step is the list of its items' results."""

    node: str
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Item:
    """The element of the list that a mapped step runs over, or a part of it."""

    path: Path = ()


@dataclass(frozen=True, slots=True)
class Several:
    """A list of values."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """A dictionary of values."""

    items: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition: one of `OPERATORS` between two values."""

    left: Value
    operator: str
    right: Value


Value = Union[Constant, Parameter, Output, Item, Several, Fields, Comparison]  # noqa: UP007 (names defined above)


@dataclass(frozen=True, slots=True)
class Scope:
    """Scope in which values are computed: parameters, results by step, and the element of a mapped step."""

    parameters: Mapping[str, Plain] = field(default_factory=dict)
    results: Mapping[str, Plain] = field(default_factory=dict)
    item: Plain = None


def outputs(value: Value) -> Iterator[str]:
    """Yield the name of each step whose result a value needs."""
    return (each.node for each in _leaves(value) if isinstance(each, Output))


def parameters(value: Value) -> Iterator[str]:
    """Yield the name of each parameter that a value needs."""
    return (each.name for each in _leaves(value) if isinstance(each, Parameter))


def _leaves(value: Value) -> Iterator[Constant | Parameter | Output | Item]:
    """Yield what a value is made of."""
    match value:
        case Several(items):
            for each in items:
                yield from _leaves(each)
        case Fields(pairs):
            for _, each in pairs:
                yield from _leaves(each)
        case Comparison(left, _, right):
            yield from _leaves(left)
            yield from _leaves(right)
        case _:
            yield value


def computed(value: Value, scope: Scope) -> Plain:
    """Return a value as JSON data.

    Raises:
        Invalid: A result lacks a part that the value names, or two values cannot be compared.
    """
    match value:
        case Constant(known):
            return known
        case Parameter(name, path):
            return _part(scope.parameters[name], path, f"The parameter {name!r}")
        case Output(node, path):
            return _part(scope.results[node], path, f"The result of step {node!r}")
        case Item(path):
            return _part(scope.item, path, "The item")
        case Several(items):
            return [computed(each, scope) for each in items]
        case Fields(pairs):
            return {name: computed(each, scope) for name, each in pairs}
        case Comparison(left, sign, right):
            one, other = computed(left, scope), computed(right, scope)
            try:
                return bool(OPERATORS[sign](one, other))
            except TypeError:
                raise Invalid(
                    f"The condition {shown(value)} compares {one!r} with {other!r}.", fix="compare values of one type."
                ) from None


def _part(value: Plain, path: Path, what: str) -> Plain:
    for at in path:
        try:
            value = value[at]
        except (LookupError, TypeError):
            raise Invalid(
                f"{what} has no {at!r}: {str(value)[:200]}.", fix="return it from the step, or correct the name."
            ) from None
    return value


def shown(value: Value) -> str:
    """Return a value as a short text, for people."""
    match value:
        case Constant(known):
            return repr(known)
        case Parameter(name, path) | Output(name, path):
            return name + "".join(f"[{at!r}]" for at in path)
        case Item(path):
            return "item" + "".join(f"[{at!r}]" for at in path)
        case Several(items):
            return f"[{', '.join(map(shown, items))}]"
        case Fields(pairs):
            return "{" + ", ".join(f"{name}: {shown(each)}" for name, each in pairs) + "}"
        case Comparison(left, sign, right):
            return f"{shown(left)} {sign} {shown(right)}"


def written(value: Value) -> dict[str, Plain]:
    """Return a value as a JSON object."""
    match value:
        case Constant(known):
            return {"value": known}
        case Parameter(name, path):
            return {"parameter": name, "path": list(path)}
        case Output(node, path):
            return {"output": node, "path": list(path)}
        case Item(path):
            return {"item": list(path)}
        case Several(items):
            return {"list": [written(each) for each in items]}
        case Fields(pairs):
            return {"object": {name: written(each) for name, each in pairs}}
        case Comparison(left, sign, right):
            return {"compare": sign, "left": written(left), "right": written(right)}


def read(document: Mapping[str, Any]) -> Value:
    """Return the value of `written`.

    Raises:
        Corrupt: The document is none.
    """
    match document:
        case {"value": known}:
            return Constant(known)
        case {"parameter": str(name), "path": list(path)}:
            return Parameter(name, tuple(path))
        case {"output": str(node), "path": list(path)}:
            return Output(node, tuple(path))
        case {"item": list(path)}:
            return Item(tuple(path))
        case {"list": list(items)}:
            return Several(tuple(map(read, items)))
        case {"object": dict(pairs)}:
            return Fields(tuple((name, read(each)) for name, each in pairs.items()))
        case {"compare": str(sign), "left": left, "right": right} if sign in OPERATORS:
            return Comparison(read(left), sign, read(right))
    raise Corrupt(f"{str(document)[:200]} is not a value of a pipeline.", fix="declare the pipeline again.")
