"""Aggregates of a source's rows for publication, with differential privacy for its subjects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, Privacy, Source, TableScan
from mainspring.features.offline.query import connection
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.stats.private_noise import margin, noisy

MILLION = 1_000_000
OTHER = "(other)"
_STEPS = 1 << 20  # of a bounded value: sums are of whole numbers
_NUMBERS = (DType.Int32, DType.Int64, DType.Float32, DType.Float64)
Kind = Literal["count", "sum", "mean", "histogram"]


@dataclass(frozen=True, slots=True)
class Asked:
    """An aggregate that is asked for.

    Attributes:
        column: The column; empty for the number of rows.
        low, high: Bounds of a sum's or mean's values, which are moved to the nearer one outside of them.
        buckets: Values of a histogram; of a fraction, the ascending edges of its bins.
    """

    kind: Kind
    column: str = ""
    low: float = 0.0
    high: float = 0.0
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A number for publication.

    Attributes:
        bucket: Value or bin of a histogram; empty otherwise.
        margin: Distance from the exact number within which the noise leaves it in 95 of 100 cases; `None` of a mean.
    """

    aggregate: str
    column: str
    bucket: str
    value: float
    margin: float | None


@dataclass(frozen=True, slots=True)
class Release:
    """Numbers that were released together.

    Attributes:
        epsilon: What they cost.
        spent, budget: Of the source, after it.
    """

    source: str
    epsilon: float
    spent: float
    budget: float
    published: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class _Exact:
    """Exact whole numbers, what one subject changes of them at most, and the SQL that they come from."""

    asked: Asked
    names: tuple[str, ...]
    sql: tuple[str, ...]
    sensitivity: int
    unit: float = 1.0


def asked_for(kind: Kind, text: str) -> Asked:
    """Return the aggregate in a text: `amount:0:100`, of a histogram `channel:web,shop`.

    Raises:
        Invalid: It is none.
    """
    column, _, rest = text.partition(":")
    if kind == "histogram":
        return Asked(kind, column, buckets=tuple(each for each in rest.split(",") if each))
    low, _, high = rest.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = math.nan, math.nan
    if not all(map(math.isfinite, bounds)):
        raise Invalid(f"{text!r} names no column with its bounds.", fix="write COLUMN:LOW:HIGH, such as amount:0:100.")
    return Asked(kind, column, *bounds)


def publish(project: Project, source: str, asked: Sequence[Asked], epsilon: float) -> Release:
    """Return aggregates of a source's newest rows, `epsilon`-differentially private for its subjects together.

    Of each subject the first rows count, as many as the source declares. The budget is spent, with an event in the
    audit log, before any noise is drawn: a process that is killed then has spent it.

    Raises:
        NotFound: There is no such source, or it has no data.
        Invalid: The source declares no budget, nothing is asked for, or an aggregate does not fit its column.
        Conflict: The budget is spent.
        MissingExtra: OpenDP is not installed.
    """
    declared = project.definitions.source(source)
    privacy, millionths = _privacy(declared), epsilon * MILLION
    if not asked or not math.isfinite(millionths) or round(millionths) < 1:
        raise Invalid("Nothing is asked for, or for nothing.", fix="name aggregates, and an --epsilon such as 0.1.")
    cost, exact = round(millionths), [each for one in asked for each in _exact(declared, privacy, one)]
    noisy([0], 1, 1.0)  # OpenDP is there
    budget = round(privacy.budget * MILLION)
    if project.privacy_budgets.spent(source) + cost > budget:
        raise _spent(project, source, budget)
    found = _read(project.lake.scan, declared, privacy, exact)
    told = ", ".join(f"{each.kind} {each.column}".rstrip() for each in asked)
    project.audit.check()
    with project.audit.together():
        enough = project.privacy_budgets.spend(source, cost, budget)
        if enough:
            audit(project, "data.publish", f"source/{source}", f"epsilon {cost / MILLION:g}: {told}")
    if not enough:
        raise _spent(project, source, budget)
    numbers = _with_noise(asked, exact, found, cost / MILLION)
    spent = project.privacy_budgets.spent(source) / MILLION
    return Release(source, cost / MILLION, spent, privacy.budget, tuple(numbers))


def _privacy(source: Source) -> Privacy:
    if source.privacy is None:
        raise Invalid(
            f"Source {source.name!r} declares no budget for publication.",
            fix='declare it: privacy=ms.Privacy(budget=1.0, keys=["customer"], each=1).',
        )
    return source.privacy


def _spent(project: Project, source: str, budget: int) -> Conflict:
    left = (budget - project.privacy_budgets.spent(source)) / MILLION
    return Conflict(
        f"The privacy budget of source {source!r} is {budget / MILLION:g}, of which {max(left, 0):g} is left.",
        fix="ask with a smaller epsilon, or publish what was released before.",
    )


def _exact(source: Source, privacy: Privacy, asked: Asked) -> list[_Exact]:
    if asked.kind == "count":
        return [_Exact(asked, ("",), ("count(*)",), privacy.each)]
    dtype = source.columns.get(asked.column)
    if asked.kind == "histogram":
        return [_histogram(source, privacy, asked)]
    if dtype not in _NUMBERS or not asked.low < asked.high:
        raise Invalid(
            f"{asked.kind} of {asked.column!r} is not possible: it is no column of numbers, or its bounds are none.",
            fix="name a column of numbers with bounds that do not come from the data: amount:0:100.",
        )
    column, low, high = quote_name(asked.column), asked.low, asked.high
    middle = (low + high) / 2 if asked.kind == "mean" else 0.0
    unit = max(abs(low - middle), abs(high - middle)) / _STEPS
    # `greatest` and `least` pass over nulls: without the CASE each null would count as `low`.
    bounded = f"CASE WHEN {column} IS NOT NULL THEN least(greatest(CAST({column} AS DOUBLE), {low!r}), {high!r}) END"
    steps = f"coalesce(sum(CAST(round(({bounded} - {middle!r}) / {unit!r}) AS BIGINT)), 0)"
    total = _Exact(asked, ("",), (steps,), privacy.each * _STEPS, unit)
    return [total] if asked.kind == "sum" else [total, _Exact(asked, ("",), (f"count({column})",), privacy.each)]


def _histogram(source: Source, privacy: Privacy, asked: Asked) -> _Exact:
    dtype, column = source.columns.get(asked.column), quote_name(asked.column)
    if dtype is None or not asked.buckets:
        raise Invalid(
            f"A histogram of {asked.column!r} is not possible: it is no column, or names no values.",
            fix="name the values, which do not come from the data: channel:web,shop.",
        )
    if dtype in (DType.Float32, DType.Float64):
        edges = _edges(asked)
        names = tuple(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
        tests = [f"{column} >= {low!r} AND {column} < {high!r}" for low, high in itertools.pairwise(edges)]
    else:
        names = tuple(dict.fromkeys(asked.buckets))
        tests = [f"CAST({column} AS VARCHAR) = {quote_text(each)}" for each in names]
    listed = " OR ".join(f"({each})" for each in tests)
    sql = [f"count(*) FILTER (WHERE {each})" for each in tests]
    sql.append(f"count(*) FILTER (WHERE {column} IS NOT NULL AND NOT ({listed}))")
    return _Exact(asked, (*names, OTHER), tuple(sql), privacy.each)


def _edges(asked: Asked) -> list[float]:
    try:
        edges = [float(each) for each in asked.buckets]
    except ValueError:
        edges = []
    if len(edges) < 2 or edges != sorted(set(edges)):
        raise Invalid(f"The bins of {asked.column!r} are not ascending numbers.", fix="name edges: amount:0,10,100.")
    return edges


def _read(
    scan: Callable[[str], TableScan], source: Source, privacy: Privacy, exact: Sequence[_Exact]
) -> list[list[int]]:
    keys = list(map(quote_name, privacy.keys))
    known = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    rows = (
        f"SELECT * FROM landed WHERE {known} "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {SEQUENCE}) <= {privacy.each}"
    )
    wanted = ", ".join(part for each in exact for part in each.sql)
    with connection("1GB") as con, duck.duck_errors(source.name):
        duck.register(con, "landed", scan(source.name))
        row: list[Any] = list(duck.one_row(con, f"SELECT {wanted} FROM ({rows})"))
    found = []
    for each in exact:
        found.append([int(value) for value in row[: len(each.sql)]])
        row = row[len(each.sql) :]
    return found


def _with_noise(
    asked: Sequence[Asked], exact: Sequence[_Exact], found: Sequence[Sequence[int]], epsilon: float
) -> list[Published]:
    """Return the numbers; each aggregate has an equal share of `epsilon`, of which a mean's total and number half."""
    made: list[Published] = []
    for one in asked:
        parts = [(each, values) for each, values in zip(exact, found, strict=True) if each.asked is one]
        share = epsilon / len(asked) / len(parts)
        noised = [(each, *noisy(values, each.sensitivity, share)) for each, values in parts]
        each, values, scale = noised[0]
        if one.kind == "mean":
            number = max(1, noised[1][1][0])
            mean = (one.low + one.high) / 2 + values[0] * each.unit / number
            made.append(Published(one.kind, one.column, "", min(max(mean, one.low), one.high), None))
            continue
        away = margin(scale) * each.unit
        for name, value in zip(each.names, values, strict=True):
            made.append(Published(one.kind, one.column, name, value * each.unit, away))
    return made
