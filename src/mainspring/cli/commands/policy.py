"""`mainspring policy`: check, test and explain who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


_DIFFERENT = 1  # the exit code of cases that are decided otherwise than expected


@click.group("policy", cls=Group)
def command() -> None:
    """Check, test and explain policies: who may do what."""


@make("check", reads_only=True)
def check(call: Call) -> None:
    """Check the project's own policies, policies/*.cedar, against the schema."""
    from mainspring.operations.policies import own_policies

    files = sorted(own_policies(call.project).own)
    said = f"{len(files)} valid: {', '.join(files)}." if files else "The project has no policies of its own."
    call.result({"files": files}, lambda console: console.print(said))


@make("test", reads_only=True)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def test(call: Call, *, file: Path) -> int:
    """Compare decisions with the table of cases in the CSV FILE: who,action,resource,expected."""
    from mainspring.operations.policies import tested

    cases = tested(call.project, file)
    wrong = [case for case in cases if case.decided != case.expected]

    def show(console: Console) -> None:
        rows = [
            (str(case.line), case.who, case.action, case.resource, case.expected, case.decided, ", ".join(case.rules))
            for case in wrong
        ]
        if rows:
            show_records(console, ("case", "who", "action", "resource", "expected", "decided", "by"), rows)
        console.print(f"{len(cases) - len(wrong)} of {len(cases)} cases are as expected.")

    call.result({"cases": len(cases), "wrong": wrong}, show)
    return _DIFFERENT if wrong else exits.OK


@make("explain", reads_only=True)
@click.argument("who")
@click.argument("action")
@click.argument("resource", default="project")
def explain(call: Call, *, who: str, action: str, resource: str) -> None:
    """Say whether WHO (user:NAME, key:ID, role:ROLE@RESOURCE ...) may do ACTION on RESOURCE, and which rule decides."""
    from mainspring.operations.policies import explain as explained

    found = explained(call.project, who, action, resource)

    def show(console: Console) -> None:
        verdict = "allowed" if found.allowed else "denied"
        by = f" by {', '.join(found.rules)}" if found.rules else ": nothing permits it"
        console.print(f"{who}: {action} on {resource} is {verdict}{by}.")
        console.print(f"Roles there: {', '.join(found.roles) or 'none'}.")
        if not found.allowed:
            console.print(f"Enough would be: {', '.join(found.enough) or 'no role'}.")

    call.result(
        {
            "allowed": found.allowed,
            "rules": list(found.rules),
            "roles": list(found.roles),
            "enough": list(found.enough),
        },
        show,
    )


for _command in (check, test, explain):
    command.add_command(_command)
