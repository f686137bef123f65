"""Computed features, online: expressions over the features and fields of one request, and their statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import Schema
from mainspring.features.model import FeatureView, RequestFeatures, Status
from mainspring.features.types import request_schema, stored_schema

PRESENT, NULL = Status.PRESENT.value, Status.NULL.value
_WORST = {Status.UNAVAILABLE.value: 4, Status.MISSING.value: 3, Status.EXPIRED.value: 2, NULL: 1, PRESENT: 0}


class Computed:
    """The computed features of one group, by full name.

    Args:
        fields: The fields of the request with their types, for a group of request features.
    """

    def __init__(self, group: FeatureView | RequestFeatures, fields: Schema) -> None:
        stored = isinstance(group, FeatureView)
        self._schema = stored_schema(group) if isinstance(group, FeatureView) else request_schema(group, fields)
        expressions = group.derived if isinstance(group, FeatureView) else group.features
        self._prefix = f"{group.name}." if stored else ""
        self._expressions = [
            (f"{group.name}.{name}", expr, sorted(columns_of(expr))) for name, expr in expressions.items()
        ]
        self._used = sorted({name for _, _, names in self._expressions for name in names})

    def values(self, known: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
        """Return each feature's values, shape (rows,).

        Args:
            known: The fields, and stored features by their full names, each of shape (rows,).

        Raises:
            InvalidData: A field is of another type.
        """
        vectors: dict[str, Vector] = {
            name: vector(known[self._prefix + name], self._schema[name]) for name in self._used
        }
        return {name: evaluate(expr, vectors, self._schema, rows).to_list() for name, expr, _ in self._expressions}

    def statuses(
        self, values: Mapping[str, Sequence[Any]], statuses: Mapping[str, Sequence[str]]
    ) -> dict[str, list[str]]:
        """Return PRESENT where a value is not null, else the worst of what it is computed from."""
        found = {}
        for name, _, names in self._expressions:
            of = [statuses[self._prefix + each] for each in names]
            found[name] = [
                PRESENT if value is not None else _worst([column[row] for column in of])
                for row, value in enumerate(values[name])
            ]
        return found


def _worst(statuses: list[str]) -> str:
    worst = max(statuses, key=_WORST.__getitem__, default=NULL)
    return NULL if worst == PRESENT else worst
