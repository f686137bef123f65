"""`mainspring rollback`: the version before goes live again."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("rollback")
@click.argument("model")
@click.option("--reason", default="", help="Why, for the alias's history.")
def command(call: Call, *, model: str, reason: str) -> None:
    """Let MODEL@champion name the version it named before."""
    from mainspring.operations.promote import rollback

    done = rollback(call.project, model, reason=reason)
    call.result(
        done,
        lambda console: console.print(
            f"[bold]{done.model} version {done.version} is champion again[/], instead of version {done.previous}."
        ),
    )
