"""Runs by what they are, out of however many."""

from __future__ import annotations

from mainspring.app.project import Project
from mainspring.app.runs.ended import close_ended
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.searching import Column, Kind, Order, RunQuery, RunRow


def find_runs(
    project: Project, model: str | None = None, *, filter_: str = "", order: str = "", limit: int = 50
) -> list[RunRow]:
    """Return runs with everything they have; those whose process died are marked as killed first.

    Args:
        filter_: In the language of docs/reference/runs-filter.md.
        order: A column, and `desc` where the largest comes first; by default the newest.

    Raises:
        Unreadable: The filter or the order cannot be read.
        NotFound: `model` has no run, and the project declares no such model.
    """
    close_ended(project)
    kinds = project.run_search.kinds
    found = parse_filter(filter_, project.wall.now(), kinds)
    query = RunQuery(found.conditions, found.words, parse_order(order, kinds) if order else Order(), limit)
    query = query if model is None else query.where(Column(Kind.ATTRIBUTE, "model"), model)
    runs = list(project.run_search.search(query, None).runs)
    if not runs and model is not None and not project.run_search.search(_of(model)).runs:
        project.definitions.model(model)  # a name that is misspelt has no runs, and is no model
    return runs


def _of(model: str) -> RunQuery:
    return RunQuery(limit=1).where(Column(Kind.ATTRIBUTE, "model"), model)
