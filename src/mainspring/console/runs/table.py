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
from mainspring.operations.runs import HELD_OUT, SYSTEM
from mainspring.project import Project
from mainspring.registry.run_filters import Filter, Unreadable, parse_filter, parse_order
from mainspring.registry.run_matching import number_of
from mainspring.registry.runs import ERROR
from mainspring.registry.searching import PARENT, Column, Condition, Kind, Order, RunQuery, RunRow, RunSearch
from mainspring.registry.unknown_names import UnknownName, unknown_names

SHOWN, COUNTED, MOST_COLUMNS, OFFERED = 25, 1000, 12, 40
TELLING, TRIED, MOST_NAMES = (
    3,
    6,
    100_000,
)  # runs whose names are read, metrics that may be the sparkline, names of a run
_NAMED = (Kind.METRIC, Kind.PARAM, Kind.TAG)
_WHY, _PARENT = Column(Kind.TAG, ERROR), Column(Kind.TAG, PARENT)
NESTED, NESTED_COUNTED, MOST_OPEN = 25, 1000, 20  # nested runs listed and counted per run, runs opened
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
    open: tuple[str, ...] = ()  # ids of runs whose nested runs are listed too

    def address(self, **changed: str | tuple[str, ...]) -> str:
        """Return the table's address with the given fields changed; at its first page unless `after` is given."""
        asked = replace(self, after="", find="")
        for name, value in changed.items():
            asked = replace(asked, **{name: value})  # type: ignore[arg-type]
        fields = [("q", asked.text), ("model", asked.model), ("status", asked.status), ("sort", asked.sort)]
        fields += [("column", column) for column in asked.columns]
        fields += [("open", run) for run in asked.open]
        fields += [("find", asked.find), ("after", asked.after)]
        return _address("/runs", fields)

    def turned(self, run_id: str) -> str:
        """Return the address of this page with the nested runs of one run opened, or closed."""
        others = tuple(each for each in self.open if each != run_id)
        return self.address(after=self.after, open=others if run_id in self.open else (*others, run_id)) + f"#{run_id}"

    @property
    def is_flat(self) -> bool:
        """True if a filter is given, so that nested runs are listed like any other."""
        return bool(self.text or self.model or self.status)

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
    depth: int = 0  # of runs above it in the table
    nested: int = 0  # counted up to `NESTED_COUNTED`
    parent: RunRow | None = None  # in a flat table

    @property
    def state(self) -> str:
        return state_of(self.run.status)

    @property
    def counted(self) -> str:
        return f"{self.nested:,}{'+' if self.nested >= NESTED_COUNTED else ''}"

    @property
    def all_nested(self) -> str:
        """Address of the table of the runs nested in it; empty if the table of its parent has room for them."""
        text = str(Condition(_PARENT, "=", self.run.id))
        return Asked(text=text).address() if self.nested > NESTED else ""

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
    is_flat: bool  # nested runs are listed like any other, not below their parents

    @property
    def first(self) -> int:
        """Number of rows without those nested in others."""
        return sum(not row.depth for row in self.rows)

    @property
    def same(self) -> Asked:
        """The query that lists the same runs elsewhere, where nested runs are listed like any other."""
        return self.asked if self.is_flat else replace(self.asked, text=str(Condition(_PARENT, "is null")))

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
    is_flat = asked.is_flat or order.column.kind is not Kind.ATTRIBUTE
    query = RunQuery(
        (*understood.conditions, *_chosen(asked)),
        understood.words,
        order,
        SHOWN,
        "" if problem else asked.after,
        nested=is_flat,
    )
    columns = tuple(parse_order(name, search.kinds).column for name in asked.columns[:MOST_COLUMNS])
    ordered = () if order.column.kind is Kind.ATTRIBUTE else (order.column,)
    wanted = (*columns, *ordered, _WHY, _PARENT)
    page = search.search(query, wanted, count_to=COUNTED + 1)
    unknown = (
        () if problem or asked.after else unknown_names(search, understood, order, page.runs, ordered_by=asked.sort)
    )
    placed = [(0, run) for run in page.runs] if is_flat else _opened(search, page.runs, asked.open, wanted, order)
    runs: Sequence[RunRow] = [run for _, run in placed]
    seen = _seen(search, page.runs, [run for depth, run in placed if depth])
    if not columns:
        columns = _usual(search, seen, order)
        runs = search.rows([run.id for run in runs], (*columns, _WHY, _PARENT))
    depths = {run.id: depth for depth, run in placed}
    ids = [run.id for run in runs]
    nested = {} if is_flat else search.children(ids, at_most=NESTED_COUNTED)
    above = [run.tags[PARENT] for run in runs if PARENT in run.tags] if is_flat else []
    parents = {run.id: run for run in search.rows(list(dict.fromkeys(above)), ())}
    main = _main(search, seen, columns, order)
    lines = search.lines(ids, main) if main else {}
    return RunTable(
        asked=asked,
        rows=tuple(
            Shown(
                run,
                tuple(cell(run, column) for column in columns),
                small(lines.get(run.id, ())),
                depths[run.id],
                nested.get(run.id, 0),
                parents.get(run.tags.get(PARENT, "")),
            )
            for run in runs
        ),
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
        is_flat=is_flat,
    )


def _chosen(asked: Asked) -> list[Condition]:
    chosen = {"model": asked.model, "status": asked.status}
    return [Condition(Column(Kind.ATTRIBUTE, name), "=", value) for name, value in chosen.items() if value]


def _opened(
    search: RunSearch, runs: Sequence[RunRow], opened: Sequence[str], columns: Sequence[Column], order: Order
) -> list[tuple[int, RunRow]]:
    """Return the runs, each followed by the first of its nested runs if it is opened, with their depths."""
    found: dict[str, tuple[int, RunRow]] = {}

    def add(depth: int, its: Sequence[RunRow]) -> None:
        for run in its:
            if run.id not in found:
                found[run.id] = (depth, run)
                if run.id in opened:
                    inside = RunQuery((Condition(_PARENT, "=", run.id),), order=order, limit=NESTED)
                    add(depth + 1, search.search(inside, columns).runs)

    add(0, runs)
    return list(found.values())


def _seen(search: RunSearch, runs: Sequence[RunRow], nested: Sequence[RunRow]) -> Seen:
    """Return the names in a sample of the runs, and of the nested ones, preferably finished ones."""
    ids = tuple(
        run.id for each in (runs, nested) for run in sorted(each, key=lambda run: run.status != "FINISHED")[:TELLING]
    )
    names = {kind: search.names(kind, limit=MOST_NAMES, of=ids) if ids else [] for kind in _NAMED}
    return Seen(ids, names)


def _usual(search: RunSearch, seen: Seen, order: Order) -> tuple[Column, ...]:
    """Return the default columns: the order's column, holdout metrics, and a few parameters."""
    names = [name for name in seen.names[Kind.METRIC] if not name.startswith(SYSTEM)]
    metrics = [name for name in names if name.startswith(HELD_OUT)] or names
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
