"""`mainspring console`: a link that logs into the console."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("console")
@click.option("--open", "open_", is_flag=True, help="Open the link in the browser.")
def command(call: Call, *, open_: bool) -> None:
    """Print a link that logs into the console once, within ten minutes, without a key.

    The console itself is run by `mainspring up`.
    """
    from mainspring.operations.keys import console_link

    link = console_link(call.project)
    if open_:
        import webbrowser

        if not webbrowser.open(link):
            call.say("There is no browser here: open the link yourself.")
    call.result(
        {"url": link, "console": call.project.settings.control.url},
        lambda console: console.print(link, soft_wrap=True, markup=False, highlight=False),
    )
