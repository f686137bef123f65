"""Checks of the warehouse: the tables that a profile names are there, with the columns of their sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mainspring.core.errors import NotFound
from mainspring.core.nearest import meant
from mainspring.operations.findings import Finding, well
from mainspring.project import Project

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.data.model import Source

_CHECK = "warehouse"


def check_warehouse(project: Project) -> Iterator[Finding]:
    """Yield the findings; none for a profile without a warehouse. No row is read.

    Raises:
        MainspringError: The warehouse does not answer, or refuses.
    """
    setting = project.settings.warehouse
    if setting is None:
        return
    warehouse, problems = project.warehouse, list[Finding]()
    version = warehouse.ping()
    for name in dict.fromkeys((*setting.tables, *setting.arrivals)):
        source = project.definitions.sources.get(name)
        if source is None:
            fix = meant(name, project.definitions.sources)
            problems.append(_problem(f"the warehouse of the profile has a table of {name!r}, which is no source", fix))
            continue
        try:
            columns = warehouse.columns(setting.table(name))
        except NotFound as error:
            problems.append(_problem(f"source {name!r}: {error.what}", error.fix or ""))
            continue
        problems += _misfits(source, setting.table(name), columns, setting.arrivals.get(name))
    yield from problems
    if not problems:
        yield well(_CHECK, f"{version} at {setting.url.shown}; tables of sources that fit: {len(setting.tables)}")


def _misfits(source: Source, table: str, columns: Mapping[str, pa.DataType], arrival: str | None) -> Iterator[Finding]:
    from mainspring.core.schema import DType
    from mainspring.data.arrow_coercion import fits

    missing = sorted({*source.columns, *filter(None, (arrival,))} - columns.keys())
    if missing:
        told = f"table {table} of source {source.name!r} has no column {', '.join(missing)}"
        yield _problem(told, f"add it to a view there, or correct the profile; {meant(missing[0], columns)}")
    for name, dtype in source.columns.items():
        kind = columns.get(name)
        if kind is None:
            continue
        told = f"column {name} of table {table} is {kind}, and source {source.name!r} declares {dtype!r}"
        if not fits(kind, dtype):
            yield _problem(told, "cast it in a view there, and name the view in the profile")
        elif dtype is DType.Timestamp and getattr(kind, "tz", "UTC") is None:
            yield _problem(f"{told}: it has no zone", "convert it in a view there to a timestamp with a time zone")


def _problem(detail: str, fix: str) -> Finding:
    return Finding(check=_CHECK, ok=False, detail=detail, fix=fix)
