"""Reference implementation of run queries: used in memory, and the oracle for every other implementation."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.registry.searching import Column, Condition, Kind, Order, RunQuery, RunRow

NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?"  # JSON's syntax, which Postgres shares
LONGEST_NUMBER = 64  # characters
LONGEST_ORDERED = 64  # characters by which parameters and tags are ordered; Postgres limits index entries
_NUMBER = re.compile(NUMBER, re.ASCII)
_FOLDED = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
# Primary sort key of a run: numbers, then texts, then runs without a value.
NUMBERS_FIRST, THEN_TEXTS, THEN_NOTHING = 0, 1, 2


def number_of(text: str | None) -> float | None:
    """Return the number that `text` spells in JSON's syntax (`3`, `-0.5`, `1e-4`), None if it spells none."""
    is_one = text is not None and len(text) <= LONGEST_NUMBER and _NUMBER.fullmatch(text)
    return float(text) if text is not None and is_one else None


def fold(text: str) -> str:
    """Return `text` with A to Z in lower case, and nothing else changed."""
    return text.translate(_FOLDED)


def value_of(run: RunRow, column: Column) -> Any:
    """Return the run's value in a column; None if it has none, or NaN."""
    if column.kind is Kind.METRIC:
        value = run.metrics.get(column.name)
        return None if value is None or math.isnan(value) else value
    if column.kind is Kind.ATTRIBUTE:
        return getattr(run, {"started": "started_at", "ended": "ended_at"}.get(column.name, column.name))
    return (run.params if column.kind is Kind.PARAM else run.tags).get(column.name)


def matches(run: RunRow, query: RunQuery) -> bool:
    """Return whether the run matches the query's conditions and words."""
    texts = [fold(run.id), fold(run.name), fold(run.model)]
    return all(any(fold(word) in text for text in texts) for word in query.words) and all(
        holds(run, condition) for condition in query.conditions
    )


def holds(run: RunRow, condition: Condition) -> bool:
    """Return whether the run matches one condition."""
    column, operator, wanted = condition.column, condition.operator, condition.value
    value = value_of(run, column)
    if operator in ("is null", "is not null"):
        # A NaN is a value, though it compares with nothing.
        there = column.name in run.metrics if column.kind is Kind.METRIC else value is not None
        return there is (operator == "is not null")
    if isinstance(wanted, (int, float)) and not column.is_number:
        value = number_of(value)
    return value is not None and _compare(value, operator, wanted)


def _compare(value: Any, operator: str, wanted: Any) -> bool:
    match operator:
        case "=":
            return bool(value == wanted)
        case "!=":
            return bool(value != wanted)
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case ">":
            return bool(value > wanted)
        case ">=":
            return bool(value >= wanted)
        case "in":
            return value in wanted
        case "not in":
            return value not in wanted
        case "contains":
            return fold(wanted) in fold(value)
        case "like":
            return _like(value, wanted)
        case "ilike":
            return _like(fold(value), fold(wanted))
    raise Invalid(f"{operator!r} is not an operator for columns of runs.")


def _like(value: str, pattern: str) -> bool:
    parts = (".*" if each == "%" else "." if each == "_" else re.escape(each) for each in pattern)
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def place_of(run: RunRow, order: Order) -> tuple[int, Any, str]:
    """Return the run's sort key: part of the order, value, id."""
    value = value_of(run, order.column)
    if value is None:
        return THEN_NOTHING, run.started_at, run.id
    if order.column.is_number:
        return NUMBERS_FIRST, value, run.id
    if order.column.kind is Kind.ATTRIBUTE:
        return THEN_TEXTS, value, run.id
    number, value = number_of(value), value[:LONGEST_ORDERED]
    return (THEN_TEXTS, value, run.id) if number is None else (NUMBERS_FIRST, number, run.id)


def in_order(runs: Iterable[RunRow], order: Order) -> list[tuple[tuple[int, Any, str], RunRow]]:
    """Return the runs with their sort keys, in order."""
    placed = [(place_of(run, order), run) for run in runs]
    found = []
    for part in (NUMBERS_FIRST, THEN_TEXTS, THEN_NOTHING):
        backward = order.descending or part == THEN_NOTHING
        found += sorted((each for each in placed if each[0][0] == part), key=lambda each: each[0][1:], reverse=backward)
    return found


def token(query: RunQuery, place: tuple[int, Any, str]) -> str:
    """Encode a position in the query's order as a URL-safe page token."""
    return base64.urlsafe_b64encode(msgspec.json.encode([_of(query), *place])).decode().rstrip("=")


def place_in(query: RunQuery) -> tuple[int, Any, str] | None:
    """Decode the query's page token; None at the beginning.

    Raises:
        Invalid: The token is malformed, or belongs to another query.
    """
    if not query.after:
        return None
    try:
        packed = base64.urlsafe_b64decode(query.after + "=" * (-len(query.after) % 4))
        made_for, part, value, run_id = msgspec.json.decode(packed, type=tuple[str, int, float | int | str, str])
    except (ValueError, msgspec.MsgspecError):
        made_for, part, value, run_id = "", 0, 0, ""
    fits = isinstance(value, str) if part == THEN_TEXTS else not isinstance(value, str)
    if made_for != _of(query) or not fits or part not in (NUMBERS_FIRST, THEN_TEXTS, THEN_NOTHING):
        raise Invalid("The page belongs to another search.", fix="start at the first page.")
    return part, value, run_id


def _of(query: RunQuery) -> str:
    # Conditions are included: a position is valid only for them, so a hand-made address is rejected.
    said = repr((query.conditions, query.words, query.order, query.nested))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]
