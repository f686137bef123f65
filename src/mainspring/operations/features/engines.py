"""Engines of the offline read: DuckDB on the lake, or the profile's warehouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.core.time import format_instant

if TYPE_CHECKING:
    from mainspring.features.warehouse import Job, WarehouseRead
    from mainspring.project import Project

LAKE, WAREHOUSE = "lake", "warehouse"
ENGINES = (LAKE, WAREHOUSE)


def stored_read(
    project: Project,
    engine: str | None,
    *,
    told: Callable[[Job], None] | None = None,
    as_of: int | None = None,
    versioned: bool = True,
) -> WarehouseRead | None:
    """Return the read of stored features by an engine; `None` for the lake.

    Args:
        engine: One of `ENGINES`; by default the profile's.
        told: Called with a statement of a warehouse before it runs.
        as_of: Instant of the versions of its tables to read, UTC epoch microseconds; by default now.
        versioned: Whether to read versions of tables, where the profile says that there are.

    Raises:
        Invalid: There is no such engine, or the profile has no warehouse.
    """
    setting = project.settings.warehouse
    chosen = engine or (WAREHOUSE if setting is not None and setting.read_features else LAKE)
    if chosen not in ENGINES:
        raise Invalid(f"There is no engine {chosen!r}.", fix=f"use one of {', '.join(ENGINES)}.")
    if chosen == LAKE:
        return None
    from mainspring.features.warehouse import Tables, WarehouseRead

    warehouse = project.warehouse
    if setting is None:  # it has raised
        return None
    return WarehouseRead(
        warehouse,
        setting.url.shown,
        Tables(sources=setting.tables, arrivals=setting.arrivals, as_of=as_of),
        versioned=versioned and setting.time_travel,
        told=told,
    )


def planned(job: Job) -> str:
    """Return a text on a statement that is about to run."""
    size = "" if job.estimated_bytes is None else f", about {job.estimated_bytes:,} bytes to scan"
    return f"{job.observations:,} observations there{size}"


def done(read: WarehouseRead) -> list[str]:
    """Return sentences on the statements that ran."""
    return [_done(job, read.name) for job in read.jobs]


def _done(job: Job, name: str) -> str:
    scanned = job.scanned_bytes if job.scanned_bytes is not None else job.estimated_bytes
    parts = [
        f"{job.observations:,} observations",
        "" if scanned is None else f"{scanned:,} bytes {'scanned' if job.scanned_bytes is not None else 'estimated'}",
        f"job {job.id}" if job.id else "",
        "" if job.as_of is None else f"tables as of {format_instant(job.as_of)}",
    ]
    return f"Features were read in {name}: {', '.join(filter(None, parts))}."
