"""`mainspring profile`: list the profiles of a project, and check their backends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console


_HELP = ("-h", "--help")


class _Profiles(Group):
    """Command group that lists the profiles if no command is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and (not args[0].startswith("-") or args[0] in _HELP)
        return super().parse_args(ctx, args if named else ["list", *args])


@click.group("profile", cls=_Profiles)
def command() -> None:
    """Profiles: the backends of a project. Without a command, list them."""


@make("list")
def show_all(call: Call) -> None:
    """List the project's profiles and the backends of each; passwords are not shown.

    Marks the profile in use. Environment variables override every profile.
    """
    from mainspring.operations.profile import list_profiles
    from mainspring.project.settings import find_project

    found = list_profiles(find_project(call.folder or Path.cwd()), call.profile)

    def show(console: Console) -> None:
        from rich.text import Text

        for profile in found:
            console.print(Text(f"{'*' if profile.used else ' '} {profile.name}", "bold"))
            for name, place in profile.places.items():
                console.print(Text(f"    {name:<10}{place}"), soft_wrap=True)
            if profile.problem:
                console.print(Text(f"    {profile.problem} Fix: {profile.fix}", "red"), soft_wrap=True)

    call.result({"profile": next(each.name for each in found if each.used), "profiles": found}, show)


@make("check")
@click.argument("name", required=False)
def check(call: Call, *, name: str | None) -> int:
    """Check each backend of profile NAME: connection, version, permissions and tables.

    By default checks the profile in use. Upstreams of language models are asked for their lists of models. Probes are
    removed, nothing is created or migrated. Exits with 13 if there is a problem.
    """
    from mainspring.operations.profile import check_profile

    call.profile = name or call.profile
    found = list(check_profile(call.project))
    well = all(each.ok for each in found)
    profile = call.project.settings.profile

    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("backend", "", "check", "", "fix"):
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


command.add_command(show_all)
command.add_command(check)
