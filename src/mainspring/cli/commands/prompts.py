"""`mainspring prompts`: versions of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("prompts", cls=Group)
def command() -> None:
    """List, show and compare the versions of prompts that `apply` recorded."""


@make("list", reads_only=True)
@click.argument("name", required=False)
def list_(call: Call, *, name: str | None) -> None:
    """List the newest version of each prompt, or all versions of NAME."""
    from mainspring.operations.prompts import described

    found = call.project.prompts.newest() if name is None else call.project.prompts.all(name)

    def show(console: Console) -> None:
        if not found:
            console.print("No prompt was applied: ms.Prompt(NAME, TEMPLATE), then mainspring apply.", markup=False)
            return
        rows = [
            (each["name"], str(each["version"]), each["digest"][:12], ", ".join(each["variables"]), each["applied_at"])
            for each in map(described, found)
        ]
        show_records(console, ("prompt", "version", "digest", "variables", "applied"), rows, right=("version",))

    call.result([described(each) for each in found], show)


@make("show", reads_only=True)
@click.argument("prompt", metavar="PROMPT")
def show(call: Call, *, prompt: str) -> None:
    """Show PROMPT: NAME, its newest version, or NAME:VERSION."""
    from mainspring.operations.prompts import described, prompt_version

    found = prompt_version(call.project, prompt)

    def shown(console: Console) -> None:
        console.print(f"{found.name}:{found.version}  {found.digest}", markup=False)
        for name, variable in found.variables.items():
            console.print(f"{{{name}}}: {variable.type} of {variable.provenance}", markup=False)
        for message in found.messages:
            console.print(f"\n[{message.role}]\n{message.text}", markup=False, highlight=False)

    call.result(described(found), shown)


@make("diff", reads_only=True)
@click.argument("name")
@click.argument("before", type=int, required=False)
@click.argument("after", type=int, required=False)
def diff(call: Call, *, name: str, before: int | None, after: int | None) -> None:
    """Show what changed in NAME from version BEFORE to AFTER; by default in the newest."""
    from mainspring.operations.prompts import prompt_difference

    found = prompt_difference(call.project, name, before, after)
    text = "\n".join(found.lines) or "Nothing but the description changed."
    call.result(found, lambda console: console.print(text, markup=False, highlight=False))


for each in (list_, show, diff):
    command.add_command(each)
