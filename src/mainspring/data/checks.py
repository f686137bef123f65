"""Checks that a source's rows must satisfy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.core.time import format_duration, parse_duration
from mainspring.data.patterns import ANYWHERE, START, WHOLE, to_re2

__all__ = ["fresh", "in_range", "length", "matches", "none_of", "not_null", "one_of", "unique"]

Value = str | int | float | bool

_PATTERNS = {"matches": WHOLE, "begins_with_match": START, "contains_match": ANYWHERE}
_TEXT = (*_PATTERNS, "length", "starts_with", "ends_with")
_KINDS = ("not_null", "in_range", "one_of", "none_of", "unique", "fresh", *_TEXT)
_FITTING: dict[DType, tuple[type, ...]] = {
    DType.String: (str,),
    DType.Boolean: (bool,),
    DType.Int32: (int,),
    DType.Int64: (int,),
    DType.Float32: (int, float),
    DType.Float64: (int, float),
}


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule for rows, or for the whole source in the case of `fresh`. Null passes every rule but `not_null`.

    `kind`: not_null, in_range, one_of, none_of, unique, fresh; for text also matches, begins_with_match, contains_match
    (a Python regular expression that matches the whole, the beginning, or any part), length, starts_with, ends_with (a
    value).
    """

    kind: str
    columns: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    values: tuple[Value, ...] = ()
    within: int = 0  # microseconds
    low_open: bool = False  # `low` is excluded
    high_open: bool = False
    pattern: str = ""

    @property
    def re2(self) -> str:
        """The pattern in DuckDB's syntax."""
        return to_re2(self.pattern, _PATTERNS[self.kind])

    def __str__(self) -> str:
        names = ", ".join(self.columns)
        if self.kind in ("in_range", "length"):
            low = "-inf" if self.low is None else f"{self.low:g}"
            high = "inf" if self.high is None else f"{self.high:g}"
            what = names if self.kind == "in_range" else f"length({names})"
            return f"{what} in {'(' if self.low_open else '['}{low}, {high}{')' if self.high_open else ']'}"
        if self.kind in ("one_of", "none_of"):
            values = ", ".join(msgspec.json.encode(value).decode() for value in self.values)
            return f"{names} {self.kind.replace('_', ' ')} {values}"
        if self.kind in ("starts_with", "ends_with"):
            return f"{names} {self.kind.replace('_', ' ')} {self.values[0]!r}"
        if self.kind in _PATTERNS:
            return f"{names} {self.kind.replace('_', ' ')} {self.pattern!r}"
        return f"{self.kind}({names})" if self.kind != "fresh" else f"fresh({format_duration(self.within)})"


def not_null(*columns: str) -> Check:
    """Require that none of `columns` is null."""
    return Check("not_null", columns)


def in_range(column: str, low: float | None = None, high: float | None = None) -> Check:
    """Require `low <= column <= high`; null passes, NaN does not."""
    return Check("in_range", (column,), low=low, high=high)


def one_of(column: str, values: Sequence[Value]) -> Check:
    """Require `column` to be one of `values`; null passes."""
    return Check("one_of", (column,), values=tuple(values))


def none_of(column: str, values: Sequence[Value]) -> Check:
    """Require `column` to be none of `values`; null passes."""
    return Check("none_of", (column,), values=tuple(values))


def matches(column: str, pattern: str) -> Check:
    """Require the whole text to match a regular expression, as in Python's `re.fullmatch`; null passes."""
    return Check("matches", (column,), pattern=pattern)


def length(column: str, low: int | None = None, high: int | None = None) -> Check:
    """Require a text to have `low` to `high` characters; null passes."""
    return Check("length", (column,), low=low, high=high)


def unique(*columns: str) -> Check:
    """Require that no two rows of the source agree in all of `columns`; the first row to arrive is kept."""
    return Check("unique", columns)


def fresh(within: str) -> Check:
    """Require the source's newest event to be at most `within` old. Reported after ingestion; no row fails it."""
    return Check("fresh", within=parse_duration(within))


def read_checks(given: Iterable[Any], columns: Schema, source: str) -> Iterator[Check]:
    """Yield the given checks, with pandera schemas translated to checks.

    Raises:
        Invalid: An element is neither, cannot be translated, or does not fit the columns.
    """
    for each in given:
        found = [each]
        if not isinstance(each, Check):
            if type(each).__module__.partition(".")[0] != "pandera" and not hasattr(each, "to_schema"):
                raise Invalid(
                    f"Source {source!r} has {each!r} as a check.",
                    fix="use the names of ms.checks, or a DataFrameSchema of pandera.",
                )
            from mainspring.data.panderas import translated

            found = translated(each, columns, source)
        for check in found:
            _verify(check, columns, source)
            yield check


def _verify(check: Check, columns: Schema, source: str) -> None:
    if check.kind not in _KINDS:
        raise Invalid(f"Source {source!r} has a check of kind {check.kind!r}.", fix=f"use {', '.join(_KINDS)}.")
    for name in check.columns:
        if name not in columns:
            raise Invalid(
                f"Source {source!r} checks {check}, but has no column {name!r}.",
                fix=f"its columns are {sorted(columns)}.",
            )
        dtype = columns[name]
        if check.kind == "in_range" and not dtype.numeric:
            raise Invalid(f"Source {source!r} checks {check}, but {name} is a {dtype.value}.", fix="check a number.")
        if check.kind in _TEXT and dtype is not DType.String:
            raise Invalid(f"Source {source!r} checks {check}, but {name} is a {dtype.value}.", fix="check a string.")
        wrong = [value for value in check.values if not _fits(value, dtype)]
        if wrong:
            raise Invalid(
                f"Source {source!r} checks {check}, but {name} is a {dtype.value}, which {wrong[0]!r} is not.",
                fix=f"list values of type {dtype.value}.",
            )
    if check.kind in _PATTERNS:
        _ = check.re2


def _fits(value: Value, dtype: DType) -> bool:
    kinds = _FITTING.get(dtype, ())
    return isinstance(value, kinds) and (dtype is DType.Boolean or not isinstance(value, bool))
