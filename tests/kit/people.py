"""Users of machines who are known: each is bound to an account by an administrator."""

from __future__ import annotations

from contextlib import suppress

from mainspring.core.errors import Conflict
from mainspring.project import Project
from mainspring.security.model import Account, BoundName, Grant, Kind, Role

REGISTRAR = "local:registrar"  # who binds them


ISSUER = "https://people.example"  # knows the registrar


def registrar(project: Project) -> None:
    """Add the administrator who binds names."""
    with suppress(Conflict):
        project.accounts.add(Account("registrar", Kind.USER, "registrar", issuer=ISSUER, subject="registrar"))
    project.accounts.grant(Grant(Kind.USER, "registrar", Role.ADMINISTRATOR))
    project.accounts.bind(BoundName(REGISTRAR, "registrar", 0, ISSUER))


def known(project: Project, *names: str) -> None:
    """Bind names such as `local:ana`, each to an account of its own that may approve."""
    registrar(project)
    for name in names:
        account = f"of-{name.partition(':')[2]}"[:26]
        with suppress(Conflict):  # it is there
            project.accounts.add(Account(account, Kind.USER, name))
        project.accounts.grant(Grant(Kind.USER, account, Role.APPROVER))
        project.accounts.bind(BoundName(name, account, 0, REGISTRAR))
