"""`mainspring login`: sign in at the identity provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from mainspring.security.oidc import Identity


@make("login")
@click.option(
    "--browser", is_flag=True, help="Use a browser on this machine, also where the provider confirms devices."
)
@click.option("--no-open", is_flag=True, help="Only print the address.")
def command(call: Call, *, browser: bool, no_open: bool) -> None:
    """Sign in at the identity provider of the profile, and bind this machine's user to your account.

    The token is kept in the keyring of the operating system, or in a file that only you may read.
    """
    from mainspring.operations import signing_in

    def show(address: str, code: str) -> None:
        call.say(f"Open {address}", soft_wrap=True, markup=False)
        if code:
            call.say(f"and confirm the code {code}.", markup=False)
        elif not no_open:
            import webbrowser

            webbrowser.open(address)

    def confirm(identity: Identity) -> bool:
        who = f"{identity.name} {identity.email or identity.subject}"
        call.say(f"{who} has signed in.", markup=False)
        return click.confirm("Is this you?", err=True)

    found = signing_in.login(call.project, show, browser=browser, confirm=confirm)
    account = found.account
    call.result(
        {"account": account.id, "name": account.name, "email": account.email, "issuer": account.issuer,
         "kept_in": call.project.credentials.place},
        lambda console: console.print(f"You are {account.name} ({account.id}).", markup=False),
    )  # fmt: skip
