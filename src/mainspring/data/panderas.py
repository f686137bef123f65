"""Translation of pandera schemas (pandas or polars) to checks in SQL, so that failing rows are identified.

Nothing is dropped silently: a rule that does not apply to single rows of a table, or has no SQL equivalent, is refused
by name. Two rules differ from pandas: NaN is a value, but is not allowed in a non-nullable column and is in no range;
of duplicate rows the first is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.data.checks import Check

_FLOATS = (DType.Float32, DType.Float64)

# pandera's names of pandas and polars types, in lower case, up to the first bracket.
_TYPES: Mapping[str, tuple[DType, ...]] = {
    "int32": (DType.Int32,),
    "int64": (DType.Int64,),
    "float32": (DType.Float32,),
    "float64": (DType.Float64,),
    "bool": (DType.Boolean,),
    "boolean": (DType.Boolean,),
    "str": (DType.String,),
    "string": (DType.String,),
    "utf8": (DType.String,),
    "object": (DType.String,),
    "datetime64": (DType.Timestamp,),
    "datetime": (DType.Timestamp,),
}


def translated(schema: Any, columns: Schema, source: str) -> list[Check]:
    """Return the checks equivalent to a `DataFrameSchema` or `DataFrameModel` for a source's rows.

    Raises:
        Invalid: A rule cannot be translated, or contradicts the source's columns.
    """
    built: Any = schema
    if isinstance(schema, type) and hasattr(schema, "to_schema"):
        built = schema.to_schema()
    if not hasattr(built, "columns") or not hasattr(built, "checks"):
        raise Invalid(f"Source {source!r} has {schema!r} as a check.", fix="give a DataFrameSchema or DataFrameModel.")
    return list(_Reading(built, columns, source).checks())


class _Reading:
    """Translation of one schema for one source."""

    def __init__(self, schema: Any, columns: Schema, source: str) -> None:
        self._schema = schema
        self._columns = columns
        self._source = source

    def _refused(self, what: str, fix: str = "remove it there, and check it where the data is produced.") -> Invalid:
        return Invalid(f"Source {self._source!r} cannot enforce a part of its pandera schema: {what}.", fix=fix)

    def checks(self) -> Iterator[Check]:
        schema = self._schema
        if schema.checks:
            raise self._refused(f"the check {_name(schema.checks[0])} of the whole frame")
        for setting, what in (("index", "an index"), ("ordered", "an order of columns"), ("parsers", "parsers")):
            if getattr(schema, setting, None):
                raise self._refused(what)
        covered = {}
        for name, column in schema.columns.items():
            for mine in self._names(name, column):
                covered[mine] = column
        if schema.strict and set(self._columns) - set(covered):
            raise self._refused(
                f"it is strict, but lacks the columns {sorted(set(self._columns) - set(covered))}",
                "add the columns, or make it less strict: undeclared columns are ignored anyway.",
            )
        for name, column in covered.items():
            yield from self._column(name, column)
        unique = tuple([schema.unique] if isinstance(schema.unique, str) else schema.unique or ())
        if unique:
            missing = [name for name in unique if name not in self._columns]
            if missing:
                raise self._refused(f"rows differ in {missing}, which the source does not have")
            yield Check("unique", unique)

    def _names(self, name: str, column: Any) -> list[str]:
        found = [mine for mine in self._columns if (re.match(name, mine) if column.regex else mine == name)]
        if not found and column.required:
            raise self._refused(
                f"it has a column {name!r}, which the source lacks", f"declare it, or make it optional: {name!r}."
            )
        return found

    def _column(self, name: str, column: Any) -> Iterator[Check]:
        dtype = self._columns[name]
        self._check_type(name, column, dtype)
        if getattr(column, "default", None) is not None:
            raise self._refused(f"column {name!r} has the default {column.default!r}")
        if getattr(column, "parsers", None):
            raise self._refused(f"column {name!r} has parsers")
        if not column.nullable:
            yield Check("not_null", (name,))
            if dtype in _FLOATS:
                yield Check("in_range", (name,))  # excludes only NaN
        if column.unique:
            yield Check("unique", (name,))
        for check in column.checks:
            yield from self._check(name, column, check)

    def _check_type(self, name: str, column: Any, dtype: DType) -> None:
        if column.dtype is None:
            return
        said = str(column.dtype)
        kind = re.split(r"[\[(]", said.lower())[0]
        if kind.startswith("datetime") and not re.search(r"utc|time_zone='", said.lower()):
            raise self._refused(
                f"column {name!r} is {said}, which has no time zone",
                "give it a time zone: naive times are not instants.",
            )
        fitting = _TYPES.get(kind, ())
        if column.coerce and dtype.numeric and any(each.numeric for each in fitting):
            return
        if dtype not in fitting:
            raise self._refused(
                f"column {name!r} is {said}, but the source declares {dtype.value}", "declare the same type in both."
            )

    def _check(self, name: str, column: Any, check: Any) -> Iterator[Check]:
        translate = _CHECKS.get(check.name)
        shown = f"the check {_name(check)} of column {name!r}"
        if translate is None or not _is_builtin(check):
            raise self._refused(shown)
        if getattr(check, "groupby", None) or getattr(check, "raise_warning", False):
            raise self._refused(f"{shown}, which compares groups or only warns")
        try:
            yield translate(name, dict(check.statistics))
        except (Invalid, TypeError, ValueError) as error:
            raise self._refused(f"{shown} ({error})") from None
        if not check.ignore_na and column.nullable:
            yield Check("not_null", (name,))  # pandera then also checks nulls, which fail


def _name(check: Any) -> str:
    return str(getattr(check, "error", None) or getattr(check, "name", None) or check)


def _is_builtin(check: Any) -> bool:
    # A user's function may share the name of a built-in check.
    return type(getattr(check, "_check_fn", None)).__module__.partition(".")[0] == "pandera"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _range(name: str, low: Any, high: Any, *, low_open: bool = False, high_open: bool = False) -> Check:
    bounds = [_plain(each) for each in (low, high)]
    for bound in bounds:
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, (int, float))):
            raise TypeError(f"{bound!r} is not a number")
    return Check("in_range", (name,), low=bounds[0], high=bounds[1], low_open=low_open, high_open=high_open)


def _list(kind: str, name: str, values: Any) -> Check:
    return Check(kind, (name,), values=tuple(_plain(value) for value in values))


def _pattern(kind: str, name: str, pattern: Any) -> Check:
    if isinstance(pattern, re.Pattern):
        if pattern.flags & ~re.UNICODE:
            raise ValueError("its flags")
        pattern = pattern.pattern
    check = Check(kind, (name,), pattern=pattern)
    _ = check.re2
    return check


def _length(name: str, said: Mapping[str, Any]) -> Check:
    exact = said.get("exact_value")
    low, high = (said["min_value"], said["max_value"]) if exact is None else (exact, exact)
    return Check("length", (name,), low=_plain(low), high=_plain(high))


_CHECKS: Mapping[str, Callable[[str, Mapping[str, Any]], Check]] = {
    "equal_to": lambda name, said: _list("one_of", name, [said["value"]]),
    "not_equal_to": lambda name, said: _list("none_of", name, [said["value"]]),
    "greater_than": lambda name, said: _range(name, said["min_value"], None, low_open=True),
    "greater_than_or_equal_to": lambda name, said: _range(name, said["min_value"], None),
    "less_than": lambda name, said: _range(name, None, said["max_value"], high_open=True),
    "less_than_or_equal_to": lambda name, said: _range(name, None, said["max_value"]),
    "in_range": lambda name, said: _range(
        name,
        said["min_value"],
        said["max_value"],
        low_open=not said.get("include_min", True),
        high_open=not said.get("include_max", True),
    ),
    "isin": lambda name, said: _list("one_of", name, said["allowed_values"]),
    "notin": lambda name, said: _list("none_of", name, said["forbidden_values"]),
    "str_matches": lambda name, said: _pattern("begins_with_match", name, said["pattern"]),
    "str_contains": lambda name, said: _pattern("contains_match", name, said["pattern"]),
    "str_startswith": lambda name, said: Check("starts_with", (name,), values=(said["string"],)),
    "str_endswith": lambda name, said: Check("ends_with", (name,), values=(said["string"],)),
    "str_length": _length,
}
