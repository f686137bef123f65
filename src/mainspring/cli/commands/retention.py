"""`mainspring retention`: deletes rows past the retention of their sources."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

_NOTHING = "Nothing is past its retention."


@make("retention")
@click.option("--plan", "plan_", is_flag=True, help="Show what would be deleted, and change nothing.")
def command(call: Call, *, plan_: bool) -> None:
    """Delete rows, or remove values, past the retention of their sources from every version, with a signed receipt.

    The worker does it once an hour. Rows of subjects that are held stay.
    """
    import msgspec

    from mainspring.cli.commands.erase import show_plan, show_receipt
    from mainspring.operations.subjects import retaining

    if plan_:
        planned = retaining.plan(call.project)
        call.result(
            {"plan": planned, "receipt": None},
            lambda console: show_plan(console, planned) if planned.held else console.print(_NOTHING),
        )
        return
    with call.progress() as progress:
        done = retaining.retain(call.project, progress.say)
    if done is None:
        call.result({"plan": None, "receipt": None}, lambda console: console.print(_NOTHING))
        return
    document = msgspec.json.decode(done.receipt)
    call.result({"plan": None, "receipt": document}, lambda console: show_receipt(console, document["receipt"]))
