"""Runs recorded as running whose process has ended."""

from __future__ import annotations

from mainspring.project import Project
from mainspring.registry.runs import sweep
from mainspring.registry.searching import Column, Condition, Kind, RunQuery

_RUNNING = Condition(Column(Kind.ATTRIBUTE, "status"), "=", "RUNNING")


def close_ended(project: Project) -> None:
    """Mark them as killed.

    Whether there is one is asked by SQL: MLflow's store takes seconds to import, and mostly there is none.
    """
    if project.run_search.search(RunQuery((_RUNNING,), limit=1)).runs:
        sweep(project.tracking, project.wall)
