"""View model of the table of runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.runs.charts import small
from mainspring.console.same import cli, python
from mainspring.project import Project
from mainspring.registry.run_filters import Filter, Unreadable, parse_filter, parse_order
from mainspring.registry.run_matching import number_of
from mainspring.registry.runs import ERROR
from mainspring.registry.searching import Column, Condition, Kind, Order, RunPage, RunQuery, RunRow, RunSearch
from mainspring.registry.unknown_names import UnknownName, unknown_names

SHOWN, COUNTED, MOST_COLUMNS, OFFERED = 25, 1000, 12, 40
TELLING, TRIED, MOST_NAMES = (
    3,
    6,
    100_000,
)  # runs whose names are read, metrics that may be the sparkline, names of a run
_NAMED = (Kind.METRIC, Kind.PARAM, Kind.TAG)
JUDGED, SYSTEM = "holdout.", ("system/", "system.")
_WHY = Column(Kind.TAG, ERROR)
_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_STATES = {"FINISHED": "fresh", "RUNNING": "live", "FAILED": "late", "KILLED": "drifted", "SCHEDULED": "empty"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Query of the table of runs, as the address encodes it."""

    text: str = ""
    model: str = ""
    status: str = ""
    sort: str = ""
    columns: tuple[str, ...] = ()
    find: str = ""  # in the names of columns
    after: str = ""

    def address(self, **changed: str | tuple[str, ...]) -> str:
        """Return the table's address with the given fields changed; at its first page unless `after` is given."""
        asked = replace(self, after="", find="")
        for name, value in changed.items():
            asked = replace(asked, **{name: value})  # type: ignore[arg-type]
        fields = [("q", asked.text), ("model", asked.model), ("status", asked.status), ("sort", asked.sort)]
        fields += [("column", column) for column in asked.columns]
        fields += [("find", asked.find), ("after", asked.after)]
        return _address("/runs", fields)

    @property
    def as_json(self) -> str:
        """The address of the same runs over the API."""
        fields = [("filter", self.text), ("model", self.model), ("status", self.status), ("order", self.sort)]
        return _address("/api/runs", [*fields, ("after", self.after)])

    @property
    def where(self) -> str:
        """The filter with the chosen status."""
        status = f"status = {self.status.lower()}" if self.status else ""
        return " and ".join(filter(None, (self.text, status)))

    @property
    def as_command(self) -> str:
        """The command that lists the same runs."""
        models = [self.model] if self.model else []
        return cli("runs", "list", *models, filter=self.where, order=self.sort)

    @property
    def as_python(self) -> str:
        """The Python code that lists the same runs."""
        return python("runs", where=self.where, model=self.model, order=self.sort)


def _address(path: str, fields: Sequence[tuple[str, str]]) -> str:
    query = urlencode([(name, value) for name, value in fields if value])
    return f"{path}?{query}" if query else path


@dataclass(frozen=True, slots=True)
class Cell:
    """A value in a row, and whether it is a right-aligned number."""

    text: str | Markup
    number: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of the table."""

    run: RunRow
    cells: tuple[Cell, ...]
    spark: Markup

    @property
    def state(self) -> str:
        return state_of(self.run.status)

    @property
    def error(self) -> str:
        """Reason for its failure; empty if it did not fail."""
        return self.run.tags.get(ERROR, "")


@dataclass(frozen=True, slots=True)
class Head:
    """A column's head: its name and the address that sorts by it. `direction` is set for the sorted column."""

    name: str
    kind: str
    sort: str
    direction: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A few of the runs, and the names of their values by kind, in order."""

    ids: tuple[str, ...]
    names: Mapping[Kind, Sequence[str]]


@dataclass(frozen=True, slots=True)
class RunTable:
    """The table. `problem` is the error of an invalid filter; the runs are then unfiltered."""

    asked: Asked
    rows: tuple[Shown, ...]
    heads: tuple[Head, ...]
    fixed: tuple[Head, ...]  # of the started and duration columns
    columns: tuple[Column, ...]
    offered: tuple[Column, ...]  # further columns to choose from
    main: str  # the metric of the sparkline
    count: int
    more: str  # the next page's place
    understood: Filter
    problem: Unreadable | None
    unknown: tuple[UnknownName, ...]  # unknown names in a filter or order that leaves no run or no order
    models: tuple[str, ...]

    @property
    def counted(self) -> str:
        return f"more than {COUNTED:,}" if self.count > COUNTED else f"{self.count:,}"


def state_of(status: str) -> str:
    """Return the stylesheet's word for a run's status."""
    return _STATES.get(status, "empty")


def run_table(project: Project, asked: Asked) -> RunTable:
    """Return the requested table.

    Raises:
        Invalid: The page belongs to another search, or a column is unknown.
    """
    search = project.run_search
    problem, understood, order = None, Filter(), Order()
    try:
        understood = parse_filter(asked.text, project.wall.now(), search.kinds)
        order = parse_order(asked.sort, search.kinds) if asked.sort else order
    except Unreadable as error:
        problem = error
    query = RunQuery(
        (*understood.conditions, *_chosen(asked)), understood.words, order, SHOWN, "" if problem else asked.after
    )
    columns = tuple(parse_order(name, search.kinds).column for name in asked.columns[:MOST_COLUMNS])
    ordered = () if order.column.kind is Kind.ATTRIBUTE else (order.column,)
    page = search.search(query, (*columns, *ordered, _WHY), count_to=COUNTED + 1)
    unknown = (
        () if problem or asked.after else unknown_names(search, understood, order, page.runs, ordered_by=asked.sort)
    )
    seen, runs = _seen(search, page), page.runs
    if not columns:
        columns = _usual(search, seen, order)
        runs = tuple(search.rows([run.id for run in runs], (*columns, _WHY)))
    main = _main(search, seen, columns, order)
    lines = search.lines([run.id for run in runs], main) if main else {}
    return RunTable(
        asked=asked,
        rows=tuple(_shown(run, columns, lines.get(run.id, ())) for run in runs),
        heads=tuple(_head(column, order) for column in columns),
        fixed=tuple(_head(Column(Kind.ATTRIBUTE, name), order) for name in ("started", "duration")),
        columns=columns,
        offered=_offered(search, seen, asked.find, columns),
        main=main,
        count=page.count or 0,
        more=page.next,
        understood=understood,
        problem=problem,
        unknown=tuple(unknown),
        models=tuple(sorted({*project.definitions.models, *({asked.model} - {""})})),
    )


def _chosen(asked: Asked) -> list[Condition]:
    chosen = {"model": asked.model, "status": asked.status}
    return [Condition(Column(Kind.ATTRIBUTE, name), "=", value) for name, value in chosen.items() if value]


def _seen(search: RunSearch, page: RunPage) -> Seen:
    """Return the names in a sample of the runs, preferably finished ones."""
    ids = tuple(run.id for run in sorted(page.runs, key=lambda run: run.status != "FINISHED")[:TELLING])
    names = {kind: search.names(kind, limit=MOST_NAMES, of=ids) if ids else [] for kind in _NAMED}
    return Seen(ids, names)


def _usual(search: RunSearch, seen: Seen, order: Order) -> tuple[Column, ...]:
    """Return the default columns: the order's column, holdout metrics, and a few parameters."""
    names = [name for name in seen.names[Kind.METRIC] if not name.startswith(SYSTEM)]
    metrics = [name for name in names if name.startswith(JUDGED)] or names
    params = [Column(Kind.PARAM, name) for name in seen.names[Kind.PARAM][:OFFERED]]
    values = [run.params for run in search.rows(seen.ids, params)] if params else []
    # Parameters that differ come first.
    params.sort(key=lambda column: len({each.get(column.name) for each in values}) == 1)
    first = [] if order.column.kind is Kind.ATTRIBUTE else [order.column]
    return tuple(dict.fromkeys((*first, *(Column(Kind.METRIC, name) for name in metrics[:3]), *params[:3])))


def _main(search: RunSearch, seen: Seen, columns: Sequence[Column], order: Order) -> str:
    """Return the first metric with several steps: the order's, a shown one, or a loss."""
    named = [column.name for column in (order.column, *columns) if column.kind is Kind.METRIC]
    losses = [name for name in seen.names[Kind.METRIC] if "loss" in name.lower()]
    return next(iter(search.lined(seen.ids, list(dict.fromkeys((*named, *losses)))[:TRIED])), "")


def _offered(search: RunSearch, seen: Seen, find: str, shown: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns to choose from: those that match the search, or some of the sampled runs."""
    found: list[Column] = []
    for kind in _NAMED:
        names = search.names(kind, find, limit=OFFERED) if find else seen.names[kind]
        offered = [name for name in names if find or not name.startswith("mlflow.")]
        found += [Column(kind, name) for name in offered[: OFFERED // 2]]
    return tuple(column for column in found if column not in shown)


def _shown(run: RunRow, columns: Sequence[Column], line: Sequence[float | None]) -> Shown:
    return Shown(run, tuple(cell(run, column) for column in columns), small(line))


def cell(run: RunRow, column: Column) -> Cell:
    """Return the cell of a run in a column."""
    if column.kind is Kind.METRIC:
        value = run.metrics.get(column.name)
        if value is None:
            return Cell(formats.missing("not logged"), True)
        if math.isnan(value):
            return Cell(formats.missing("not a number"), True)
        return Cell(Markup("<span title='{}'>{}</span>").format(repr(value), formats.number(value, 5)), True)
    text = (run.params if column.kind is Kind.PARAM else run.tags).get(column.name)
    if text is None:
        return Cell(formats.missing("not logged"), False)
    if not text:
        return Cell(formats.missing("an empty text"), False)
    return Cell(Markup("<span title='{}'>{}</span>").format(text, _shortened(text)), False)


def _shortened(text: str) -> str | Markup:
    """Return a text shortened to a cell: the first digits of a long number, the beginning of a digest."""
    value = number_of(text)
    if value is not None and "." in text and len(text) > 9:
        return formats.number(value, 5)
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= 28 else f"{text[:27]}…"


def _head(column: Column, order: Order) -> Head:
    here = column == order.column
    turned = not order.descending if here else column.kind is not Kind.PARAM
    direction = ("descending" if order.descending else "ascending") if here else ""
    name = column.name.capitalize() if column.kind is Kind.ATTRIBUTE else column.name
    return Head(name, column.kind.value, f"{column} {'desc' if turned else 'asc'}", direction)
