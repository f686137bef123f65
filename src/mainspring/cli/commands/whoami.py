"""`mainspring whoami`: the person on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("whoami", reads_only=True)
def command(call: Call) -> None:
    """Show who you are: this machine's user, your account, and what a running console says of it."""
    from mainspring.core.time import format_instant
    from mainspring.operations import signing_in

    found = signing_in.whoami(call.project)
    account = None if found.signed is None else found.signed.account

    def show(console: Console) -> None:
        lines = [f"user of this machine: {found.user}"]
        if account is None:
            lines.append("account: none; run `mainspring login`.")
        else:
            lines.append(f"account: {account.name} ({account.id}) at {account.issuer}")
            lines.append(f"roles: {', '.join(found.roles) or 'none'}")
            lines.append(f"groups: {', '.join(found.groups) or 'none'}")
            lines.append(f"console: {found.console}")
        for line in lines:
            console.print(line, markup=False, highlight=False)

    call.result(
        {"user": found.user, "account": "" if account is None else account.id,
         "name": "" if account is None else account.name, "roles": list(found.roles), "groups": list(found.groups),
         "expires_at": None if found.signed is None else format_instant(found.signed.expires_at),
         "console": found.console},
        show,
    )  # fmt: skip
