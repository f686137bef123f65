"""Clocks, locks and the catalog of a project: its every other part is built on them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from mainspring.core.errors import Invalid
from mainspring.core.locks import FileLocks, Locks
from mainspring.core.settings import Settings, Url
from mainspring.core.time import Clock, ReplayClock, SystemClock
from mainspring.project.backends.base import LOCKS, Build, Context, build
from mainspring.project.parts.cached import cached_property

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mainspring.project.composition import Project

REPLAY_START = 0  # time of a replayed clock before any replay


class Base:
    """Settings, clocks, locks and the catalog.

    Args:
        settings: The profile from which adapters and services are built on first use.
        parts: Parts by name that replace those of the settings: `clock=`, `lake=`, `definitions=` in tests.

    Raises:
        Invalid: A project has no part of that name.
    """

    def __init__(self, settings: Settings, **parts: Any) -> None:
        self.settings: Settings = settings
        self.reads_only: bool = False  # whether the opener writes nothing that is shared with other profiles
        self.wall: Clock = parts.pop("wall", SystemClock())
        self._building = threading.RLock()  # held while a part of the project is built, or its definitions are loaded
        for name, part in parts.items():
            if not isinstance(getattr(type(self), name, None), functools.cached_property):
                raise Invalid(f"A project has no part {name!r}.", fix="name an adapter or a service of `Project`.")
            vars(self)[name] = part

    def _build(self, port: str, table: Mapping[str, Build], url: Url) -> Any:
        return build(port, table, Context(url, cast("Project", self)))

    @cached_property
    def clock(self) -> Clock:
        if self.settings.clock == "system":
            return self.wall
        path = self.settings.state / "replay.clock"
        return ReplayClock(path, start=None if path.exists() else REPLAY_START)

    @cached_property
    def own_locks(self) -> Locks:
        """Locks of this state folder, for resources that only this machine's processes can reach."""
        return FileLocks(self.settings.state / "locks")

    @cached_property
    def locks(self) -> Locks:
        """Locks of the project, on every machine that opens it; they are where the catalog is."""
        built: Locks = self._build("locks", LOCKS, self.settings.catalog)
        return built

    @cached_property
    def engine(self) -> sa.Engine:
        """The catalog, migrated to this version."""
        from mainspring.project.catalog import open_catalog

        file = self.settings.catalog.scheme == "sqlite"
        return open_catalog(self.settings.catalog, self.locks if file else self.own_locks, self.settings.scope)
