"""Ingestion of rows of the profile's warehouse: those that arrived since the last time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.operations.auditing import begun
from mainspring.operations.ingest import derived, ingested_source
from mainspring.project import Project

if TYPE_CHECKING:
    from mainspring.data.warehouse.pulling import Puller, PullPlan, PullReport


def pull(
    project: Project,
    source: str,
    *,
    since: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> PullReport:
    """Ingest the rows of a source's table in the warehouse that arrived since the last pull, each once.

    Args:
        since: The arrival from which on rows are read, as text; by default the position of the table says it.

    Raises:
        NotFound: There is no such source, or no such table.
        Invalid: The profile has no warehouse, or does not name the source's column of arrivals.
        InvalidData: The table does not fit the source.
        Conflict: As `Puller.pull`.
        Unavailable: The warehouse does not answer; the next pull goes on.
        StorageFull: No space; the next pull goes on.
    """
    with _puller(project, source) as puller:
        position = None if since is None else puller.arrivals.parsed(since)
        with begun(project, "ingest", f"source/{source}") as done:
            report = puller.pull(position, progress)
            report = replace(report, warnings=(*report.warnings, *derived(project, source)))
            counts = f"{report.rows} ingested, {report.quarantined} quarantined, {report.known} known"
            done(f"{counts}; from {report.table} up to {report.until}; version {report.version}")
    return report


def plan_pull(project: Project, source: str, *, since: str | None = None) -> PullPlan:
    """Return what `pull` would read, by a look at the table; nothing is changed.

    Raises:
        MainspringError: As `pull`.
    """
    with _puller(project, source) as puller:
        return puller.plan(None if since is None else puller.arrivals.parsed(since))


def pulled_sources(project: Project) -> list[str]:
    """Return the sources whose column of arrivals the profile names.

    Raises:
        Invalid: It names none.
    """
    setting = project.settings.warehouse
    if setting is None or not setting.arrivals:
        raise Invalid(
            f"Profile {project.settings.profile!r} names no arrivals of a warehouse.",
            fix=f'write arrivals = {{ SOURCE = "COLUMN" }} in [profiles.{project.settings.profile}.warehouse].',
        )
    return [*setting.arrivals]


@contextmanager
def _puller(project: Project, source: str) -> Iterator[Puller]:
    from mainspring.core.expr.dialects import dialect
    from mainspring.data.warehouse.arrivals import arrivals, check_table
    from mainspring.data.warehouse.pulling import Puller

    declared = ingested_source(project, source)
    warehouse, setting = project.warehouse, project.settings.warehouse
    if setting is None or source not in setting.arrivals:
        raise Invalid(
            f"Profile {project.settings.profile!r} does not say how rows of {source!r} are ordered in the warehouse.",
            fix=f'write arrivals = {{ {source} = "COLUMN" }} in [profiles.{project.settings.profile}.warehouse].',
        )
    table = setting.table(source)
    try:
        columns = warehouse.columns(table)
        check_table(table, columns, declared)
        order = arrivals(
            dialect(warehouse.dialect), table, setting.arrivals[source], setting.lateness.get(source), columns
        )
        yield Puller(
            declared,
            order,
            warehouse=warehouse,
            lake=project.lake,
            ingestor=project.ingestor,
            store=project.pull_store,
            locks=project.locks,
            wall=project.wall,
            keyings=project.definitions.keyings(source),
        )
    finally:
        warehouse.close()  # others may wait to write to a file of DuckDB
