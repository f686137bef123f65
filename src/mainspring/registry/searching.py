"""Search over very many runs: queries, results and the port.

The value of a run's metric is its newest, as in MLflow's own search. A condition on a missing value, or on NaN, never
holds, `!=` included; only `is null` does. Text is compared by code points, and some operators ignore the case of A to
Z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import format_duration, format_instant

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
PARENT = "mlflow.parentRunId"  # tag of a nested run with its parent's id
MOST_RUNS, MOST_POINTS = 1000, 2000  # limits of a page and of a history


class Kind(StrEnum):
    """Kind of a column."""

    METRIC = "metrics"
    PARAM = "params"
    TAG = "tags"
    ATTRIBUTE = "attributes"


class Axis(StrEnum):
    """Axis of a history: the logged step, or the time in microseconds."""

    STEP = "step"
    TIME = "time"


# Attributes by type. Times are UTC epoch microseconds; a duration, in microseconds, exists once a run has ended.
TEXTS = ("id", "name", "model", "status")
NUMBERS = ("started", "ended", "duration")


@dataclass(frozen=True, slots=True)
class Column:
    """A metric, parameter, tag or attribute of runs."""

    kind: Kind
    name: str

    def __post_init__(self) -> None:
        if self.kind is Kind.ATTRIBUTE and self.name not in (*TEXTS, *NUMBERS):
            raise Invalid(f"A run has no attribute {self.name!r}.", fix=f"use one of {', '.join((*TEXTS, *NUMBERS))}.")

    def __str__(self) -> str:
        if self.kind is Kind.ATTRIBUTE:
            return self.name
        plain = self.name.replace(".", "").replace("_", "").isalnum() and self.name.isascii()
        return f"{self.kind}.{self.name}" if plain else f'{self.kind}."{self.name}"'

    @property
    def is_number(self) -> bool:
        """True if every value is a number; a parameter or tag is text, which may spell a number."""
        return self.kind is Kind.METRIC or (self.kind is Kind.ATTRIBUTE and self.name in NUMBERS)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that a run must match.

    Args:
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`; `like` and `ilike` with SQL's `%` and `_`; `contains`, which ignores
            case; `in`, `not in`; `is null`, `is not null`.
        value: A number compares numbers; a parameter or tag is then read as a number. A text compares texts.
            A tuple of texts for `in` and `not in`; None for `is null` and `is not null`.
    """

    column: Column
    operator: str
    value: float | int | str | tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.column} {self.operator}"
        if isinstance(self.value, tuple):
            return f"{self.column} {self.operator} ({', '.join(map(quoted, self.value))})"
        if isinstance(self.value, str):
            return f"{self.column} {self.operator} {quoted(self.value)}"
        told = repr(self.value).removesuffix(".0")
        if self.column.kind is Kind.ATTRIBUTE:
            is_duration = self.column.name == "duration"
            told = quoted(format_duration(int(self.value))) if is_duration else format_instant(int(self.value))
        return f"{self.column} {self.operator} {told}"


@dataclass(frozen=True, slots=True)
class Order:
    """Sort order of runs. Runs without the value, or with NaN, come last, newest first.

    Parameters and tags that spell a number come first, in numeric order, then the others. Ties are ordered by id.
    """

    column: Column = Column(Kind.ATTRIBUTE, "started")
    descending: bool = True

    def __str__(self) -> str:
        return f"{self.column} {'desc' if self.descending else 'asc'}"


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A query for runs that match every condition and contain every word in their id, name or model.

    Without `nested`, runs are left out whose parent exists.
    """

    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    order: Order = Order()
    limit: int = 50
    after: str = ""  # page token: `next` of the page before
    nested: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST_RUNS:
            raise Invalid(f"A page cannot have {self.limit} runs.", fix=f"request 1 to {MOST_RUNS}.")

    def where(self, column: Column, value: str) -> RunQuery:
        """Return the query with `column = value` added."""
        return replace(self, conditions=(*self.conditions, Condition(column, "=", value)))


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, with the requested metrics, parameters and tags."""

    id: str
    name: str
    model: str
    status: str
    started_at: int  # UTC epoch microseconds, to the millisecond
    ended_at: int | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def duration(self) -> int | None:
        """Duration in microseconds; None until the run has ended."""
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of runs, in order. `next` is the token of the next page, empty on the last.

    `count` is the number of matching runs, if requested.
    """

    runs: tuple[RunRow, ...]
    next: str = ""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Summary of the values that a run logged in one interval of the axis; NaN values are counted separately."""

    place: int  # index, from the start of the history
    low: float
    high: float
    mean: float
    count: int
    nans: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """One metric of several runs, in buckets of one width that all runs share, so that their curves can be overlaid.

    Bucket n covers [first + n * width, first + (n + 1) * width). Empty buckets, and runs without the metric, are
    omitted; a bucket that holds only NaN has NaN for its numbers.
    """

    metric: str
    axis: Axis
    first: int
    width: int
    runs: Mapping[str, tuple[Bucket, ...]]

    def begin(self, place: int) -> int:
        return self.first + place * self.width


class UnknownRun(NotFound):
    def __init__(self, run_id: str) -> None:
        super().__init__(f"There is no run {run_id[:140]!r}.", fix="`mainspring runs` lists them.")


class RunSearch(Protocol):
    """Read-only search over runs, without deleted ones."""

    def search(self, query: RunQuery, columns: Sequence[Column] | None = (), *, count_to: int = 0) -> RunPage:
        """Return the next page of runs, each with its metrics, parameters and tags in `columns`.

        While runs are added and change, no run is on two pages unless its sort value changed.

        Args:
            columns: None for all columns.
            count_to: Limit up to which matching runs are counted, as by `count`; 0 for no count.

        Raises:
            Invalid: `query.after` is from a query in another order.
        """
        ...

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        """Return the number of matching runs, counted up to `at_most`; order and page are ignored."""
        ...

    def children(self, run_ids: Sequence[str], *, at_most: int = 1000) -> Mapping[str, int]:
        """Return the number of runs nested in each of these runs, counted up to `at_most`; runs without any are
        omitted.
        """
        ...

    def get(self, run_ids: Sequence[str]) -> list[RunRow]:
        """Return these runs with all columns, in the given order.

        Raises:
            NotFound: One of the runs does not exist.
        """
        ...

    def rows(self, run_ids: Sequence[str], columns: Sequence[Column]) -> list[RunRow]:
        """Return those of these runs that exist, in the given order, each with its values in `columns`."""
        ...

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        """Return names of metrics, parameters or tags, of any run, that contain `text`, ignoring case.

        Names that start with `text` come first; then the order is by code points.

        Args:
            of: Restricts the names to those of these runs.
        """
        ...

    def kinds(self, name: str) -> list[Kind]:
        """Return which of metric, parameter and tag exist under this name, in this order."""
        ...

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        """Return the values of a metric in at most `points` buckets, of one step each if that suffices.

        Runs that do not exist or lack the metric are omitted.

        Raises:
            Invalid: Of fewer points than one, or more than `MOST_POINTS`.
        """
        ...

    def lined(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics for which one of the runs logged two or more steps, in the given order."""
        ...

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        """Return a few values of each run's metric for a sparkline: the first value at or after each of `points` even
        steps.

        NaN is None; a single point is the first value. The cost depends on `points`, not on the length of the history.
        Runs with fewer than two steps are omitted.

        Raises:
            Invalid: Of fewer points than one, or more than `MOST_POINTS`.
        """
        ...


def quoted(text: str) -> str:
    """Return a text, quoted for the filter language."""
    return f"'{text}'" if "'" not in text else f'"{text}"'
