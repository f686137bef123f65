"""Training runs: search by metric, parameter, tag or status, names and notes, closing of runs of dead processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.auditing import begun
from mainspring.project import Project
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.runs import NAME, NOTE, sweep
from mainspring.registry.searching import MOST_RUNS, Column, Condition, Kind, Order, RunPage, RunQuery, RunRow
from mainspring.registry.unknown_names import unknown_names

HELD_OUT, SYSTEM = "holdout.", ("system/", "system.")  # prefixes of metrics
LONGEST_NAME, LONGEST_NOTE = 250, 5_000  # characters
NOTES = ("mlflow.note.content", NOTE)  # tags of a note; MLflow's own tools change only theirs
_OF_ONE_RUN = ("mlflow.", "mainspring.")  # tags that always differ, or repeat a column
_RUNNING = Condition(Column(Kind.ATTRIBUTE, "status"), "=", "RUNNING")


def find_runs(
    project: Project,
    model: str | None = None,
    *,
    filter_: str = "",
    order: str = "",
    limit: int = 50,
    by_hand: bool = False,
) -> list[RunRow]:
    """Return runs with all their values; runs whose process died are first marked as killed.

    Args:
        filter_: A filter as in docs/reference/runs-filter.md.
        order: A column, with `desc` for the largest first; by default newest first.
        by_hand: Whether a person wrote the filter and the order, so that an unknown name is an error.

    Raises:
        Unreadable: The filter or the order cannot be parsed.
        UnknownName: With `by_hand`, a name that no run has leaves no runs or no order.
        NotFound: `model` has no run, and the project declares no such model.
    """
    close_ended(project)
    kinds = project.run_search.kinds
    found = parse_filter(filter_, project.wall.now(), kinds)
    query = RunQuery(found.conditions, found.words, parse_order(order, kinds) if order else Order(), limit)
    query = query if model is None else query.where(Column(Kind.ATTRIBUTE, "model"), model)
    runs = list(project.run_search.search(query, None).runs)
    if not runs and model is not None and not project.run_search.search(_of(model)).runs:
        project.definitions.model(model)  # a misspelt name has no runs, and is not a model
    if by_hand:
        slips = unknown_names(project.run_search, found, query.order, runs, ordered_by=order)
        if slips:
            raise slips[0]
    return runs


def _of(model: str) -> RunQuery:
    return RunQuery(limit=1).where(Column(Kind.ATTRIBUTE, "model"), model)


def run_of(project: Project, run_id: str) -> RunRow:
    """Return a run with all its values, by its id or the first characters of it.

    Raises:
        NotFound: No id begins so.
        Invalid: Several do.
    """
    try:
        [found] = project.run_search.get([run_id])
    except NotFound:
        begun = run_id.lower()
        page = project.run_search.search(RunQuery(words=(begun,), limit=MOST_RUNS), None) if begun else RunPage(())
        alike = [run for run in page.runs if run.id.startswith(begun)]
        if len(alike) > 1:
            shown = ", ".join(run.id for run in alike[:3])
            raise Invalid(
                f"{len(alike)} runs begin with {run_id!r}: {shown}{', ...' if alike[3:] else ''}.",
                fix="write more of the id.",
            ) from None
        if not alike:
            raise
        found = alike[0]
    return found


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """One column of some runs, with the value of each, `None` where a run has none."""

    column: Column
    values: tuple[str | float | None, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs' values differ; NaN equals NaN."""
        first = self.values[0]
        return any(value != first and repr(value) != repr(first) for value in self.values)


def compared_columns(runs: Sequence[RunRow]) -> list[ComparedColumn]:
    """Return the columns of runs side by side: parameters, held-out metrics, other metrics, tags.

    Metrics of the machine (`SYSTEM`), and tags that always differ or repeat a column, are left out.
    """
    return [
        ComparedColumn(Column(kind, name), tuple(each.get(name) for each in values))
        for kind in (Kind.PARAM, Kind.METRIC, Kind.TAG)
        for values in [[_values(run, kind) for run in runs]]
        for name in sorted({name for each in values for name in each}, key=lambda name: (not held_out(name), name))
    ]


def held_out(name: str) -> bool:
    """Return whether a metric was measured on held-out rows."""
    return name.startswith(HELD_OUT)


def _values(run: RunRow, kind: Kind) -> Mapping[str, str | float]:
    if kind is Kind.PARAM:
        return run.params
    if kind is Kind.METRIC:
        return {name: value for name, value in run.metrics.items() if not name.startswith(SYSTEM)}
    return {name: text for name, text in run.tags.items() if not name.startswith(_OF_ONE_RUN)}


def describe_run(project: Project, run_id: str, *, name: str | None = None, note: str | None = None, by: str) -> None:
    """Give a run another name, or a note; the store's own tools show them too. It is audited.

    Args:
        name: One line; `None` leaves the name as it is.
        note: Text of any form; empty removes it, `None` leaves it.
        by: The caller, for the audit log.

    Raises:
        Invalid: The name is empty or has several lines, or a text is too long.
        NotFound: There is no such run.
    """
    tags: dict[str, str] = {}
    if name is not None:
        tags[NAME] = name.strip()
        if not tags[NAME].isprintable() or not 0 < len(tags[NAME]) <= LONGEST_NAME:
            raise Invalid(f"{name[:100]!r} is no name of a run.", fix=f"use 1 to {LONGEST_NAME} printable characters.")
    if note is not None:
        tags[NOTE] = note.replace("\r\n", "\n").strip()
        if len(tags[NOTE]) > LONGEST_NOTE:
            raise Invalid(f"The note has {len(tags[NOTE]):,} characters.", fix=f"use at most {LONGEST_NOTE:,}.")
    run = project.tracking.get(run_id)
    changed = {tag: text for tag, text in tags.items() if run.tags.get(tag, "") != text}
    if changed:
        what = ", ".join({NAME: f"name {tags.get(NAME)!r}", NOTE: "note"}[tag] for tag in changed)
        with begun(project, "run.describe", f"run/{run_id}", who=by) as done:
            project.tracking.log(run_id, tags=changed)
            done(what)


def note_of(run: RunRow) -> str:
    """Return the note of a run, written here or with MLflow's own tools; empty if it has none."""
    return next((run.tags[tag] for tag in NOTES if run.tags.get(tag)), "")


def close_ended(project: Project) -> None:
    """Mark runs as killed that are recorded as running but whose process has ended.

    SQL checks whether there are any, because MLflow's store takes seconds to import and mostly there are none.
    """
    if project.run_search.search(RunQuery((_RUNNING,), limit=1)).runs:
        sweep(project.tracking, project.wall)
