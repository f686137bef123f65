"""Checks of a profile's warehouse: does it answer, and are the tables there that the profile names."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.errors import NotFound
from mainspring.project import Project
from mainspring.project.place_checks import Outcome


def warehouse(project: Project) -> Iterator[Outcome]:
    """Ask for the version, then for the columns of each table. It reads no row.

    Raises:
        MainspringError: The warehouse does not answer, or refuses.
    """
    setting = project.settings.warehouse
    assert setting is not None
    found = project.warehouse
    try:
        yield Outcome("reachable", True, found.ping())
        for source, table in setting.tables.items():
            try:
                columns = found.columns(table)
            except NotFound as error:
                yield Outcome("tables", False, f"of {source!r}: {error.what}", error.fix or "")
                continue
            arrival = setting.arrivals.get(source)
            if arrival is not None and arrival not in columns:
                told = f"arrivals names the column {arrival!r} of {source!r}, and {table} has {', '.join(columns)}"
                yield Outcome("tables", False, told, "correct `arrivals` of the warehouse in the profile")
            else:
                yield Outcome("tables", True, f"{table} of {source!r} has {len(columns)} columns")
    finally:
        found.close()  # a check keeps no connection open
