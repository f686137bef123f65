"""`mainspring budgets`: what of the month's money is spent, and what is held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.budgets.reporting import BudgetReport

_STYLES = {"exceeded": "red", "warned": "yellow"}


@make("budgets", reads_only=True)
def command(call: Call) -> None:
    """Show this month's budgets, exceeded ones first: spent, forecast with nine-in-ten bounds, and what holds."""
    from mainspring.operations.budgets.reporting import budgets

    found = budgets(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print('No budget is declared: ms.Budget(NAME, project=True, month="500 EUR").', markup=False)
            return
        _show(console, found)

    call.result(found, show)


def _show(console: Console, found: list[BudgetReport]) -> None:
    from rich.text import Text

    rows = [
        (each.budget, each.of, f"{each.spent:,.2f} of {each.amount:,.2f} {each.currency}", f"{each.share:.0%}",
         _ahead(each), Text(each.level, _STYLES.get(each.level, "")))
        for each in found
    ]  # fmt: skip
    show_records(console, ("budget", "of", "spent", "share", "month's end", "level"), rows, right=("share",))
    for each in found:
        if each.holds:
            console.print(
                f"{each.budget} holds: {', '.join(each.holds)}; until {each.until}.", style="red", markup=False
            )
            console.print(f"  `mainspring incidents end-shed {each.incident}` ends it.", style="dim", markup=False)
        if each.unpriced:
            console.print(
                f"{each.budget} counts only what has a price: `mainspring prices show`.", style="yellow", markup=False
            )


def _ahead(report: BudgetReport) -> str:
    if report.expected is None or report.low is None or report.high is None:
        return "too few days"
    return f"{report.expected:,.2f} ({report.low:,.2f} to {report.high:,.2f})"
