"""`mainspring quotas`: what is left of the quotas of endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@make("quotas", reads_only=True)
def command(call: Call) -> None:
    """Show what each caller has used of its quotas in the current period, the fullest first."""
    from mainspring.operations.quotas import use

    found = use(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("No quota was used: ms.Endpoint(NAME, model=MODEL, quotas=[ms.Quota(...)]).", markup=False)
            return
        rows = [
            (each.quota, each.who, ", ".join(each.endpoints), f"{each.spent:,g} of {each.limit:,g} {each.measure}",
             f"{each.left / each.limit:.0%}", each.per, each.resets_at)
            for each in found
        ]  # fmt: skip
        show_records(console, ("quota", "who", "endpoints", "used", "left", "per", "resets"), rows, right=("left",))

    call.result(found, show)
