"""Random filters of the kind that `vectors.conditions` takes, and the ids that pass them by evaluation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.tree import Node, col
from mainspring.vectors.conformance_store import FIELDS
from mainspring.vectors.conformance_text import made_fields

ROWS = 300
IDS = [f"t{place:03}" for place in range(ROWS)]
VALUES = made_fields(ROWS, seed=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = {name: vector(VALUES[name], dtype) for name, dtype in FIELDS.items()}
_CONSTANTS: dict[str, list[Any]] = {
    "kind": ["a", "b", "it's", "", "ünï", "\U0001f980", "zz", "zzz", "'; DROP TABLE t; --", "%", "\\", '"'],
    "part": [0, 1, 3, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, 1.0, 1e30, -1e30, 2.0**63, 9007199254740993.0],
    "year": [2020, 2021, 2020.5, 2**31 - 1, 2**40, -5],
    "price": [0, 0.0, -0.0, 0.25, 1, 1e308, 0.1],
    "rough": [0.25, 0.1, 0.10000000149011612, 1],
    "seen": [
        _EPOCH,
        _EPOCH.astimezone(timezone(timedelta(hours=-12))),
        _EPOCH - timedelta(microseconds=1),
        _EPOCH + timedelta(microseconds=1785000000_123456),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    ],
    "public": [True, False],
}
_OPERATORS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")


@st.composite
def _comparisons(draw: st.DrawFn) -> Node:
    name = draw(st.sampled_from(sorted(FIELDS)))
    field, constants = col(name), st.sampled_from(_CONSTANTS[name])
    kind = draw(st.sampled_from(["compare", "compare", "compare", "one_of", "is_null", "own"]))
    if kind == "is_null":
        return field.is_null()
    if kind == "one_of":
        return field.one_of(draw(st.lists(constants, max_size=3)))
    if kind == "own" and name in ("price", "rough"):
        return field.is_nan()
    if name == "public":
        return field if kind == "own" else field == draw(constants)
    return getattr(field, draw(st.sampled_from(_OPERATORS)))(draw(constants))  # type: ignore[no-any-return]


def conditions() -> st.SearchStrategy[Node]:
    """Return filters, nested."""
    return st.recursive(
        _comparisons(),
        lambda inner: st.one_of(
            st.builds(lambda each: ~each, inner),
            st.builds(lambda left, right: left & right, inner, inner),
            st.builds(lambda left, right: left | right, inner, inner),
        ),
        max_leaves=6,
    )


def passing_ids(where: Node) -> set[str]:
    """Return the ids of the rows that pass."""
    passes = evaluate(where, _COLUMNS, FIELDS, ROWS).to_list()
    return {each for each, passed in zip(IDS, passes, strict=True) if passed}
