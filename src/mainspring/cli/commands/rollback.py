"""`mainspring rollback`: deploy the previous version again."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("rollback")
@click.argument("model")
@click.option("--reason", default="", help="Reason, for the promotion history.")
@click.option("--emergency", is_flag=True, help="Return to a version of your own that is not approved; give a reason.")
def command(call: Call, *, model: str, reason: str, emergency: bool) -> None:
    """Move MODEL@champion back to the version before."""
    rolled_back(call, model, reason, emergency=emergency)


def rolled_back(call: Call, model: str, reason: str, *, emergency: bool) -> None:
    """Roll a model back, and show what is champion then."""
    from mainspring.operations.promote import rollback

    done = rollback(call.project, model, reason=reason, emergency=emergency)
    call.result(
        done,
        lambda console: console.print(
            f"[bold]{done.model} version {done.version} is champion again[/], instead of version {done.previous}."
        ),
    )
