"""Check of the job store by `profile check`. Jobs are stored in the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mainspring.jobs.model import Status
from mainspring.project import Project
from mainspring.project.place_checks import Outcome, catalog_schema


def with_jobs(project: Project, catalog: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield the outcomes of the catalog's checks, then what is known of the jobs there. Nothing is made for it."""
    from mainspring.project.catalog import HEAD

    outcomes = []
    for outcome in catalog:
        outcomes.append(outcome)
        yield outcome
    if not all(outcome.ok for outcome in outcomes):
        return
    if catalog_schema(HEAD) not in outcomes:
        yield Outcome("jobs", True, "kept in the catalog, once its tables are there")
        return
    counts = project.jobs.counts()
    project.engine.dispose()  # a check keeps no connection open
    told = ", ".join(f"{counts[status]} {status}" for status in Status if status in counts)
    fix = "see `mainspring jobs list --status failed`" if Status.FAILED in counts else ""
    yield Outcome("jobs", True, told or "none yet", fix)
