"""An opened project: the adapter of every port and every service over them, each built on first use.

The only place where settings become objects. Modules are imported on use: the gateway opens the same project as the
command line, but never loads modules that only training needs.
"""

from __future__ import annotations

from typing import Any

from mainspring.core.memory import expect_room
from mainspring.core.sandbox import set_policy
from mainspring.core.settings import Settings
from mainspring.project.gitignore import keep_out_of_git
from mainspring.project.parts.monitoring import MonitoringParts
from mainspring.project.restoring import expect_restored, remove_scratch
from mainspring.project.tenancy import claim


def open_project(settings: Settings, *, reads_only: bool = False, restores: bool = False) -> Project:
    """Return the project. Only its state folder is opened, and made private.

    Args:
        reads_only: Whether the opener writes nothing that is shared with other profiles.
        restores: Whether the opener finishes a restore that was interrupted.

    Raises:
        Conflict: A restore was interrupted, and the opener neither only reads nor finishes it.
    """
    expect_room()
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    claim(settings)
    keep_out_of_git(settings)
    project = Project(settings)
    project.reads_only = reads_only
    if not reads_only:
        remove_scratch(settings.state, project.own_locks)
    if not (reads_only or restores):
        expect_restored(settings.state)
    return project


class Project(MonitoringParts):
    """A project's adapters and services. `clock` is the domain clock, `wall` the machine's.

    Keys, runs, promotions and audit events are dated by `wall`, so a replayed clock never makes a key valid again.
    """

    def __init__(self, settings: Settings, **parts: Any) -> None:
        set_policy(settings.isolation)
        super().__init__(settings, **parts)

    def close(self) -> None:
        """Write the rest of the log and close every connection. The project must not be in use any more."""
        for built in list(vars(self).values()):  # parts that were built; an adapter with open resources has `close`
            close = getattr(built, "close", None)
            if close is not None:
                close()
        if "engine" in vars(self):
            self.engine.dispose()
        keep_out_of_git(self.settings)  # folders created meanwhile

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Allowed Host headers of both planes."""
        addresses = (self.settings.gateway, self.settings.control)
        names = {f"{host}:{address.port}" for address in addresses for host in (address.host, "localhost", "127.0.0.1")}
        return tuple(sorted({*names, *self.settings.allowed_hosts}))
