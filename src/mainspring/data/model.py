"""What a source is, what its rows must satisfy, and what a version of the data is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.declare import declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.schema import DType, Schema, check_schema
from mainspring.core.time import parse_duration

if TYPE_CHECKING:
    import pyarrow as pa

# The columns that ingestion adds to a source's own.
VISIBLE_AT = "_visible_at"  # timestamp: when the row could first be known
SEQUENCE = "_seq"  # int64: the order of arrival, unique in the table
BATCH = "_batch"  # string: the batch that brought the row
RECORD_PREFIX = "_record_"  # + keying name, bool: whether the row counts for last values (cases: record-setting rule)
REASON = "_reason"  # string, in the quarantine only: why the row failed
QUARANTINE_SUFFIX = "__quarantine"
TILES_PREFIX = "tiles__"  # tables that are made from others, and can be made again

_KINDS = ("not_null", "in_range", "one_of", "unique", "fresh")
_FITTING = {
    DType.String: (str,),
    DType.Boolean: (bool,),
    DType.Int32: (int,),
    DType.Int64: (int,),
    DType.Float32: (int, float),
    DType.Float64: (int, float),
}


class Check(msgspec.Struct, frozen=True):
    """A rule for rows. `kind`: not_null, in_range, one_of, unique; or `fresh`, a rule for the whole source."""

    kind: str
    columns: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    values: tuple[str | int | float | bool, ...] = ()
    within: int = 0  # microseconds

    def __str__(self) -> str:
        names = ", ".join(self.columns)
        if self.kind == "in_range":
            low = "-inf" if self.low is None else f"{self.low:g}"
            return f"{names} in [{low}, {'inf' if self.high is None else f'{self.high:g}'}]"
        if self.kind == "one_of":
            return f"{names} one of {list(self.values)}"
        return f"{self.kind}({names})"


def not_null(*columns: str) -> Check:
    """None of `columns` is null."""
    return Check("not_null", columns)


def in_range(column: str, low: float | None = None, high: float | None = None) -> Check:
    """`low <= column <= high`; null passes, NaN does not."""
    return Check("in_range", (column,), low=low, high=high)


def one_of(column: str, values: list[str | int | float | bool]) -> Check:
    """`column` is one of `values`; null passes."""
    return Check("one_of", (column,), values=tuple(values))


def unique(*columns: str) -> Check:
    """No two rows of the source agree in all of `columns`; the row that came first stays."""
    return Check("unique", columns)


def fresh(within: str) -> Check:
    """The source's newest event is at most `within` old. Reported after ingestion; no row fails it."""
    return Check("fresh", within=parse_duration(within))


@dataclass(frozen=True, eq=False)
class SourceColumn:
    """One column of a source, such as a model's label: `arrivals.late`."""

    source: Source
    column: str


@dataclass(frozen=True, eq=False)
class Source:
    """A stream of facts, landed in one table.

    Columns are reached as attributes: `arrivals.late` is `SourceColumn(arrivals, "late")`.

    Args:
        name: Its name, an id.
        schema: Column names and types, without `event_time` and `recorded_time`, which are always timestamps.
        event_time: The column that says when a fact became true in the world.
        recorded_time: The column that says when it could have been known; without it, facts are known as they happen.
        lag: How much later than `recorded_time` a row is really available, a duration.
        checks: Rules each row must satisfy; a row that fails goes to the quarantine with the reason.
        pii: The columns that identify a person.

    Raises:
        Invalid: A name or type cannot be one, a check names an unknown column, `lag` is no duration.
    """

    name: str
    _: KW_ONLY
    schema: Schema
    event_time: str
    recorded_time: str | None = None
    lag: str | int = 0
    checks: Sequence[Check] = ()
    description: str = ""
    owner: str = ""
    pii: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_id(self.name + QUARANTINE_SUFFIX, "source")
        if self.name.endswith(QUARANTINE_SUFFIX):
            raise Invalid(
                f"Source {self.name!r} would share a table with what another source's rows failed.", fix="rename it."
            )
        check_schema(self.schema, f"Source {self.name!r}")
        check_schema(dict.fromkeys(self.times, DType.Timestamp), f"Source {self.name!r}")
        if len({name.casefold() for name in self.columns}) < len(self.columns):
            raise Invalid(
                f"Of the columns of source {self.name!r} two differ in case only: {sorted(self.columns)}.",
                fix="rename one of them: tables do not tell them apart.",
            )
        for time in self.times:
            if time in self.schema:
                raise Invalid(
                    f"Source {self.name!r} lists its time {time!r} in the schema too.",
                    fix="leave it out of the schema.",
                )
        unknown = {name for check in self.checks for name in check.columns} | set(self.pii)
        unknown -= set(self.columns)
        if unknown:
            raise Invalid(
                f"Source {self.name!r} has checks or marks on columns it does not have: {sorted(unknown)}.",
                fix=f"its columns are {sorted(self.columns)}.",
            )
        for check in self.checks:
            self._check_types(check)
        _ = self.lag_us
        declare(self)

    def _check_types(self, check: Check) -> None:
        if check.kind not in _KINDS:
            raise Invalid(f"Source {self.name!r} has a check of kind {check.kind!r}.", fix=f"use {', '.join(_KINDS)}.")
        for name in check.columns:
            dtype = self.columns[name]
            if check.kind == "in_range" and not dtype.numeric:
                raise Invalid(
                    f"Source {self.name!r} checks {check}, but {name} is a {dtype.value}.", fix="check a number."
                )
            wrong = [value for value in check.values if not _fits(value, dtype)]
            if wrong:
                raise Invalid(
                    f"Source {self.name!r} checks {check}, but {name} is a {dtype.value}, which {wrong[0]!r} is not.",
                    fix=f"list values of type {dtype.value}.",
                )

    @property
    def times(self) -> tuple[str, ...]:
        return (self.event_time,) if self.recorded_time is None else (self.event_time, self.recorded_time)

    @property
    def columns(self) -> Schema:
        """Every column a row has to bring, with its type; the times first."""
        return {**dict.fromkeys(self.times, DType.Timestamp), **self.schema}

    @property
    def lag_us(self) -> int:
        return parse_duration(self.lag)

    def __getattr__(self, name: str) -> SourceColumn:
        if not name.startswith("_") and name in self.columns:
            return SourceColumn(self, name)
        raise AttributeError(f"Source {self.name!r} has no column {name!r}; it has {sorted(self.columns)}.")


def _fits(value: str | int | float | bool, dtype: DType) -> bool:
    kinds = _FITTING.get(dtype, ())
    return isinstance(value, kinds) and (dtype is DType.Boolean or not isinstance(value, bool))


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingestion did.

    `rows` landed in the table, `quarantined` in the quarantine, `already` were there from before and changed nothing;
    the three add up to the rows that came in. `reasons` counts the quarantined rows by reason (a row may have several).
    """

    source: str
    rows: int
    quarantined: int
    already: int
    version: int
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # what was done first to the table, because the source's declaration changed


@dataclass(frozen=True, slots=True)
class TableScan:
    """How to read one version of a table: the Parquet files it is made of, or, in memory, its rows.

    Exactly one of `files` and `rows` is set. Files may lack columns that were added later, and a table without rows
    has no file: `schema` is the version's, whole (`data.duck.register` gives every column of it).
    """

    version: int
    files: tuple[str, ...] | None = None
    rows: pa.Table | None = None
    schema: pa.Schema | None = None


@dataclass(frozen=True, slots=True)
class TableVersion:
    """What is known of one version of a table without its rows.

    `restored` is the newest version, up to this one, that a restore made; None where the table never went back.
    """

    version: int
    rows: int
    schema: pa.Schema
    restored: int | None = None


@dataclass(frozen=True, slots=True)
class DatasetCommit:
    """One version of each table, under one id (the digest of its content and parent)."""

    id: str
    versions: Mapping[str, int]
    parent: str | None
    message: str
    at: int  # UTC epoch microseconds
