"""`mainspring logout`: forget the sign-in."""

from __future__ import annotations

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("logout")
def command(call: Call) -> None:
    """Forget the sign-in of this machine's user. The session at the provider goes on."""
    from mainspring.operations import signing_in

    ended = signing_in.logout(call.project)
    told = "You are signed out." if ended else "Nobody is signed in here."
    call.result({"signed_out": ended}, lambda console: console.print(told))
