"""Users of machines who are known: each is bound to an account by somebody else."""

from __future__ import annotations

from contextlib import suppress

from mainspring.core.errors import Conflict
from mainspring.project import Project
from mainspring.security.model import Account, BoundName, Kind

REGISTRAR = "local:registrar"  # who binds them


def known(project: Project, *names: str) -> None:
    """Bind names such as `local:ana`, each to an account of its own."""
    for name in names:
        account = f"of-{name.partition(':')[2]}"[:26]
        with suppress(Conflict):  # it is there
            project.accounts.add(Account(account, Kind.USER, name))
        project.accounts.bind(BoundName(name, account, 0, REGISTRAR))
