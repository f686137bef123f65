"""Runs by what they are, out of however many."""

from __future__ import annotations

from mainspring.app.project import Project
from mainspring.registry.run_filters import kinds_in, parse_filter, parse_order
from mainspring.registry.runs import sweep
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
    """
    sweep(project.tracking, project.wall)
    kinds = kinds_in(project.run_search)
    found = parse_filter(filter_, project.wall.now(), kinds)
    query = RunQuery(found.conditions, found.words, parse_order(order, kinds) if order else Order(), limit)
    query = query if model is None else query.where(Column(Kind.ATTRIBUTE, "model"), model)
    return project.run_search.get([run.id for run in project.run_search.search(query).runs])
