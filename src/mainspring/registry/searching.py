"""Finding runs among very many: what is asked, what is found, and the port that answers.

A run's metric here is its newest value, as MLflow's own search has it. A condition on what a run does not have, or on
a NaN, never holds, `!=` included; only `is null` does. Text is compared by its code points, and without regard to the
case of A to Z where an operator says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import format_duration, format_instant

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
PARENT = "mlflow.parentRunId"  # the tag by which a nested run names the run around it
MOST_RUNS, MOST_POINTS = 1000, 2000  # of one page, of one history


class Kind(StrEnum):
    """What a column is a column of."""

    METRIC = "metrics"
    PARAM = "params"
    TAG = "tags"
    ATTRIBUTE = "attributes"


class Axis(StrEnum):
    """What a history goes along: the step that was logged, or the instant, in microseconds."""

    STEP = "step"
    TIME = "time"


# Attributes by type. A duration, in microseconds, is there once a run has ended; times are UTC epoch microseconds.
TEXTS = ("id", "name", "model", "status")
NUMBERS = ("started", "ended", "duration")


@dataclass(frozen=True, slots=True)
class Column:
    """Something that a run may have a value of."""

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
        """Whether every value is one; a parameter or a tag is text that may be read as one."""
        return self.kind is Kind.METRIC or (self.kind is Kind.ATTRIBUTE and self.name in NUMBERS)


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a run must have.

    Args:
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`; `like` and `ilike` with SQL's `%` and `_`; `contains`, whatever the
            case; `in`, `not in`; `is null`, `is not null`.
        value: A number compares numbers: of a parameter or tag, those texts that are one. A text compares texts.
            A tuple of texts for `in` and `not in`, None for the last two.
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
    """What comes first. Runs without the value, or with NaN, come last, the newest of them first.

    Of a parameter or tag the texts that are numbers come first, as numbers, then the others; of equals, by id.
    """

    column: Column = Column(Kind.ATTRIBUTE, "started")
    descending: bool = True

    def __str__(self) -> str:
        return f"{self.column} {'desc' if self.descending else 'asc'}"


@dataclass(frozen=True, slots=True)
class RunQuery:
    """What is asked: runs that fulfil every condition and have every word in their id, name or model."""

    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    order: Order = Order()
    limit: int = 50
    after: str = ""  # where the page before ended: its `next`

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST_RUNS:
            raise Invalid(f"A page of {self.limit} runs cannot be.", fix=f"ask for 1 to {MOST_RUNS}.")

    def where(self, column: Column, value: str) -> RunQuery:
        """Return the query with `column = value` as well."""
        return replace(self, conditions=(*self.conditions, Condition(column, "=", value)))


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, with as much of its metrics, parameters and tags as was asked for."""

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
        """Microseconds, once it has ended."""
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some of the runs, in order. `next` gets the page after this one; empty where there is none.

    `count` is how many runs the query is of, if that was asked for.
    """

    runs: tuple[RunRow, ...]
    next: str = ""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """The values that a run logged between two places of the axis; NaN are counted apart."""

    place: int  # counted from the history's first
    low: float
    high: float
    mean: float
    count: int
    nans: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """One metric of several runs, in buckets of one width that all share, so that lines can be laid over each other.

    Bucket n holds what lies in [first + n * width, first + (n + 1) * width). Empty ones, and runs without the metric,
    are left out; one that holds only NaN has NaN for its numbers.
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
    """Runs as they can be looked for; deleted ones are not there. It writes nothing that is a run's."""

    def search(self, query: RunQuery, columns: Sequence[Column] | None = (), *, count_to: int = 0) -> RunPage:
        """Return the next runs, each with those of the metrics, parameters and tags in `columns` that it has.

        While runs are added and change, no run is on two pages, unless its value in the order changed.

        Args:
            columns: None for everything that the runs have.
            count_to: Until where the query's runs are counted as well, as `count` does; 0 for not at all.

        Raises:
            Invalid: `query.after` is from a query in another order.
        """
        ...

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        """Return how many runs the query is of, counted until `at_most`; its order and page do not matter."""
        ...

    def get(self, run_ids: Sequence[str]) -> list[RunRow]:
        """Return these runs with everything they have, in the order asked.

        Raises:
            NotFound: One of them does not exist.
        """
        ...

    def rows(self, run_ids: Sequence[str], columns: Sequence[Column]) -> list[RunRow]:
        """Return those of these runs that are there, in the order asked, each with what it has in `columns`."""
        ...

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        """Return names of metrics, parameters or tags of any run that contain `text`, whatever the case.

        Those that begin with it come first, then by their code points.

        Args:
            of: Only names that one of these runs has.
        """
        ...

    def kinds(self, name: str) -> list[Kind]:
        """Return whether any run has a metric, a parameter and a tag of this name, in this order."""
        ...

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        """Return what the runs logged of a metric, in at most `points` buckets, of one step each where that is enough.

        Runs that do not exist or have none of it are left out.

        Raises:
            Invalid: Of fewer points than one, or more than `MOST_POINTS`.
        """
        ...

    def lined(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics of which one of the runs logged two steps or more, in the order asked."""
        ...

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        """Return a few values of each run's metric, evenly over its own steps: the first at each of `points` steps or
        after, None for NaN; of one point its first. However much was logged, only those are read.

        Runs with fewer than two steps of it are left out.

        Raises:
            Invalid: Of fewer points than one, or more than `MOST_POINTS`.
        """
        ...


def quoted(text: str) -> str:
    """Return a text as the filter language has it."""
    return f"'{text}'" if "'" not in text else f'"{text}"'
