"""Filters of searches as callers of an API write them: OpenAI's comparison and compound filters of its file search.

A comparison is `{"type": "eq", "key": "section", "value": "billing"}`, of the types eq, ne, gt, gte, lt, lte, in and
nin; a compound one `{"type": "and", "filters": [...]}`, or "or". Source: https://github.com/openai/openai-openapi.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType, Schema
from mainspring.core.time import parse_instant

MOST_COMPARISONS, MOST_VALUES, DEEPEST = 64, 1_000, 8
_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip
_JOINED: Mapping[str, Callable[[Any, Any], Any]] = {"and": operator.and_, "or": operator.or_}
_INTEGERS = (DType.Int32, DType.Int64)
_FLOATS = (DType.Float32, DType.Float64)
_END = 1 << 63


def filter_node(given: Any, fields: Schema) -> Node:
    """Return the condition that a filter is.

    Args:
        fields: Those that filters may name.

    Raises:
        Invalid: It is none, names another field, has a value of another type, or is too large.
    """
    return _Reader(fields).read(given, 1)


class _Reader:
    def __init__(self, fields: Schema) -> None:
        self._fields, self._left = fields, MOST_COMPARISONS

    def read(self, given: Any, depth: int) -> Node:
        if not isinstance(given, dict):
            raise Invalid("A filter is no object.", fix='write {"type": "eq", "key": "FIELD", "value": "VALUE"}.')
        kind = given.get("type")
        if isinstance(kind, str) and kind in _JOINED:
            parts = self._only(given, "filters").get("filters")
            if not isinstance(parts, list) or not parts or depth >= DEEPEST:
                raise Invalid(f"A filter {kind!r} has no list of filters, or is nested deeper than {DEEPEST}.")
            return reduce(_JOINED[kind], [self.read(each, depth + 1) for each in parts])
        if not isinstance(kind, str) or kind not in (*_COMPARED, "in", "nin"):
            known = ", ".join((*_COMPARED, "in", "nin", *_JOINED))
            raise Invalid(f"A filter has the type {_shown(kind)}.", fix=f"write one of {known}.")
        return self._comparison(kind, self._only(given, "key", "value"))

    def _comparison(self, kind: str, given: Mapping[str, Any]) -> Node:
        self._left -= 1
        if self._left < 0:
            raise Invalid(f"A filter has more than {MOST_COMPARISONS} comparisons.", fix='list values with "in".')
        name = given.get("key")
        if not isinstance(name, str) or name not in self._fields:
            raise Invalid(f"A filter names the field {_shown(name)}.", fix=f"its fields are {sorted(self._fields)}.")
        dtype = self._fields[name]
        field: Any = col(name).cast(DType.Int64) if dtype is DType.Timestamp else col(name)
        value = given.get("value")
        if kind in _COMPARED:
            found: Node = _COMPARED[kind](field, _value(name, dtype, value))
            return found
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_VALUES:
            raise Invalid(f"The filter {kind!r} of {name!r} has no list of up to {MOST_VALUES:,} values.")
        among: Node = field.one_of([_value(name, dtype, each) for each in value])
        return among if kind == "in" else ~among

    def _only(self, given: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
        more = sorted(set(given) - {"type", *names})
        if more:
            raise Invalid(f"A filter has the field {_shown(more[0])}.", fix=f"write type and {' and '.join(names)}.")
        return given


def _value(name: str, dtype: DType, value: Any) -> Any:
    """Return a constant of a field's type."""
    whole = isinstance(value, int) and not isinstance(value, bool) and -_END <= value < _END
    if dtype is DType.String and isinstance(value, str):
        return value
    if dtype is DType.Boolean and isinstance(value, bool):
        return value
    if dtype in _INTEGERS and whole:
        return value
    if dtype in _FLOATS and (whole or (isinstance(value, float) and math.isfinite(value))):
        return float(value)
    if dtype is DType.Timestamp and (whole or isinstance(value, str)):
        return parse_instant(value) if isinstance(value, str) else value
    raise Invalid(f"{_shown(value)} is no value of {name!r}, which is {dtype!r}.", fix="write another value.")


def _shown(value: Any) -> str:
    return ascii(value)[:80]
