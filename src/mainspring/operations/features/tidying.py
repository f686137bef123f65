"""Garbage collection of derived data: online states and tiles of views that are no longer in use."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from mainspring.core.errors import Conflict
from mainspring.core.time import DAY
from mainspring.data.model import TILES_PREFIX
from mainspring.features.materialise.materialisation import BUILDING
from mainspring.features.materialise.provenance import read_ledger
from mainspring.features.model import FeatureView
from mainspring.features.tilelog.rows import tiles_table
from mainspring.project import Project

# How long states stay that no definition and no live bundle names: somebody may go back, or not have come yet.
UNUSED_FOR = 7 * DAY


@dataclass(slots=True)
class Tidied:
    """Result of a clean-up: removed slots of the online store, removed tables of tiles, views with compacted tiles."""

    slots: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)


def tidy(project: Project, in_use: dict[str, FeatureView]) -> Tidied:
    """Remove unused states and tiles; safe at any time, twice, or while others materialise.

    Args:
        in_use: See `app.inuse.ViewsInUse.by_slot`.
    """
    done = Tidied()
    for name in project.online.views():
        wanted = name in in_use
        if not wanted and _age(project, name) > UNUSED_FOR:
            project.online.clear(name)
            done.slots.append(name)
    named = {tiles_table(name) for name in in_use}
    named |= {tiles_table(name.removesuffix(BUILDING)) for name in project.online.views()}
    for table in project.lake.tables():
        if table.startswith(TILES_PREFIX) and table not in named and _empty(project, table):
            done.tables.append(table)
    for view in in_use.values():
        if project.materialiser.compact(view):
            done.compacted.append(view.name)
    return done


def _age(project: Project, slot: str) -> int:
    """Return how long ago, by the domain's clock, a slot was brought up to date, µs."""
    position = project.online.position(slot)
    if position is None:
        ledger = read_ledger(project.online, slot)
        position = None if ledger is None else ledger.position
    return UNUSED_FOR + 1 if position is None else abs(project.clock.now() - position)


def _empty(project: Project, table: str) -> bool:
    """Take the tiles out of a table that no view needs; return whether there were any."""
    scan = project.lake.scan(table)
    if scan.files == () or (scan.rows is not None and not len(scan.rows)):
        return False
    with suppress(Conflict), project.locks.hold(f"build.{table}", wait_s=0), project.locks.hold(table, wait_s=0):
        # A view that is built for the first time has tiles before it has states.
        if scan.schema is None:
            return False
        project.lake.replace(table, [], scan.schema, key=f"unused.{scan.version}")
        project.lake.vacuum(table, [])
        return True
    return False
