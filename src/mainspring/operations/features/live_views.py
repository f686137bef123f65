"""Feature views in use: the declared ones, and those that live bundles read.

A changed view has another slot in the online store. While a route leads to a bundle that reads the old slot, both are
kept up to date, so that a new feature in an old view needs no downtime. States and tiles of views that are no longer in
use are removed by `tidy`.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field

from mainspring.core.errors import Conflict, Corrupt, NotFound
from mainspring.core.time import DAY
from mainspring.data.model import TILES_PREFIX
from mainspring.features import definitions
from mainspring.features.layout import slot
from mainspring.features.materialise.materialisation import BUILDING
from mainspring.features.materialise.provenance import read_ledger
from mainspring.features.model import FeatureView, views_of
from mainspring.features.tilelog.rows import tiles_table
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES

_log = logging.getLogger("mainspring")
# How long states without a definition or live bundle are kept, for a rollback or a later deployment.
UNUSED_FOR = 7 * DAY


class ViewsInUse:
    """The views of a project that are in use. Bundles never change, so reads of them are cached."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._of_bundle: dict[str, list[FeatureView]] = {}

    def by_slot(self) -> dict[str, FeatureView]:
        """Return slot -> view, declared views first.

        A bundle that cannot be read is left out; serving reports its error.
        """
        found = {slot(view): view for view in self._project.definitions.views.values()}
        live = {arm.digest for route in self._project.routes.current().values() for arm in route.arms}
        for digest in sorted(live):
            for view in self._of(digest):
                found.setdefault(slot(view), view)
        return found

    def _of(self, digest: str) -> list[FeatureView]:
        if digest not in self._of_bundle:
            try:
                content = self._project.bundles.load(digest).files.get(FEATURES)
                groups = [] if content is None else definitions.load(content)[0]  # a model of tensors has no features
            except (Corrupt, NotFound) as error:
                _log.warning("bundle %s: %s", digest[:12], error)
                return []
            self._of_bundle[digest] = views_of(groups)
        return self._of_bundle[digest]


@dataclass(slots=True)
class Tidied:
    """Result of a clean-up: removed slots of the online store, removed tables of tiles, views with compacted tiles."""

    slots: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)


def tidy(project: Project, in_use: dict[str, FeatureView]) -> Tidied:
    """Remove unused states and tiles; safe at any time, twice, or while others materialise.

    Args:
        in_use: As `ViewsInUse.by_slot` returns them.
    """
    tidied = Tidied()
    for name in project.online.views():
        used = name in in_use
        if not used and _age(project, name) > UNUSED_FOR:
            project.online.clear(name)
            tidied.slots.append(name)
    table_names = {tiles_table(name) for name in in_use}
    table_names |= {tiles_table(name.removesuffix(BUILDING)) for name in project.online.views()}
    for table in project.lake.tables():
        if table.startswith(TILES_PREFIX) and table not in table_names and _empty(project, table):
            tidied.tables.append(table)
    for view in in_use.values():
        if project.materialiser.compact(view):
            tidied.compacted.append(view.name)
    if tidied.slots or tidied.tables:
        told = f"unused: {', '.join([*tidied.slots, *tidied.tables])}"
        audit(project, "features.tidy", "views", told)
    return tidied


def _age(project: Project, slot: str) -> int:
    """Return the time since a slot was last updated, by the domain clock, µs."""
    position = project.online.position(slot)
    if position is None:
        ledger = read_ledger(project.online, slot)
        position = None if ledger is None else ledger.position
    return UNUSED_FOR + 1 if position is None else abs(project.clock.now() - position)


def _empty(project: Project, table: str) -> bool:
    """Delete the tiles of a table that no view needs; return whether there were any."""
    scan = project.lake.scan(table)
    if scan.files == () or (scan.rows is not None and not len(scan.rows)):
        return False
    with suppress(Conflict), project.locks.hold(f"build.{table}", wait_s=0), project.locks.hold(table, wait_s=0):
        # On its first build a view has tiles before it has states.
        if scan.schema is None:
            return False
        project.lake.replace(table, [], scan.schema, key=f"unused.{scan.version}")
        project.lake.vacuum(table, [])
        return True
    return False
