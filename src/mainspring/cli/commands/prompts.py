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
    """List, show, compare and name the versions of prompts that `apply` recorded."""


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
    """Show PROMPT: NAME, its newest version, NAME:VERSION or NAME@ALIAS."""
    from mainspring.operations.prompts import described, prompt_version

    found = prompt_version(call.project, prompt)

    def shown(console: Console) -> None:
        console.print(f"{found.name}:{found.version}  {found.digest}", markup=False)
        for name, variable in found.variables.items():
            console.print(f"{{{name}}}: {variable.type} of {variable.provenance}", markup=False)
        for message in found.messages:
            console.print(f"\n[{message.role}]\n{message.text}", markup=False, highlight=False)

    call.result(described(found), shown)


@make("point")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=int)
@click.option("--canary", type=int, help="Another version, for a share of the keys.")
@click.option("--share", type=float, default=0.0, help="Share of the keys that get it: 0.1.")
def point(call: Call, *, name: str, alias: str, version: int, canary: int | None, share: float) -> None:
    """Point ALIAS of NAME at VERSION."""
    from mainspring.operations.prompts import described
    from mainspring.operations.prompts import point as move

    found = move(call.project, name, alias, version, canary=canary, share=share)
    rest = f", {share:.0%} of the keys to {canary}" if canary is not None else ""
    call.result(described(found), lambda console: console.print(f"{name}@{alias} is {version}{rest}.", markup=False))


@make("aliases", reads_only=True)
@click.argument("name")
def aliases(call: Call, *, name: str) -> None:
    """List the aliases of NAME."""
    from mainspring.operations.prompts import described

    found = [described(each) for each in call.project.prompts.aliases(name)]

    def show(console: Console) -> None:
        rows = [
            (each["alias"], str(each["version"]), str(each["canary"] or ""), f"{each['share']:.0%}", each["moved_at"],
             each["moved_by"])
            for each in found
        ]  # fmt: skip
        show_records(console, ("alias", "version", "canary", "share", "moved", "by"), rows, right=("version", "canary"))

    call.result(found, show)


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


for each in (list_, show, point, aliases, diff):
    command.add_command(each)
