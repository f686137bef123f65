"""`mainspring profile`: the profiles of a project, and whether what they name can be worked with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console


@click.group("profile", cls=Group)
def command() -> None:
    """Profiles: where each thing of a project lives."""


@make("check")
@click.argument("name", required=False)
def check(call: Call, *, name: str | None) -> int:
    """Check each backend of profile NAME: does it answer, which version is it, which rights are there, which tables?

    By default the profile that other commands would use. Probes are taken back, nothing is made or migrated. Exits
    with 13 if something is not well.
    """
    from mainspring.app.profiles.checking import check_profile

    call.profile = name or call.profile
    found = list(check_profile(call.project))
    well = all(each.ok for each in found)
    profile = call.project.settings.profile

    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("backend", "", "check", "", "what to do"):
            table.add_column(column, overflow="fold")
        before = ""
        for each in found:
            if each.backend != before:
                table.add_row(Text(each.backend, "bold"), "", "", Text(each.at, "dim"), "")
            before = each.backend
            mark = Text("✓", "green") if each.ok else Text("✗", "red")
            table.add_row("", mark, Text(each.check), Text(each.detail), Text(each.fix))
        console.print(table)
        console.print(f"Profile {profile}: {'all is well.' if well else 'not all is well.'}", style="bold")

    call.result({"profile": profile, "well": well, "checks": found}, show)
    return exits.OK if well else exits.UNHEALTHY


command.add_command(check)
