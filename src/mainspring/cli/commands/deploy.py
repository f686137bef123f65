"""`mainspring deploy`: bring the project's endpoints to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records, size_text

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.deploy.targets.model import Needs
    from mainspring.operations.deploying import DeployReport

_SIGNS = {"make": "+", "change": "~", "keep": " ", "remove": "-"}


@make("deploy")
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 3600), default=300.0, show_default=True,
              help="Seconds until all has to be ready.")  # fmt: skip
def command(call: Call, *, target: str, dry_run: bool, wait_s: float) -> None:
    """Deploy to TARGET: show what would change, then change it, and wait until it is ready.

    A target is a table of mainspring.toml: [targets.east] with a kind. A deployment that was cut off is resumed by the
    next one.
    """
    from mainspring.operations import deploying

    if dry_run:
        report = deploying.report(call.project, deploying.plan(call.project, target))
        call.result(report, lambda console: _show(console, report))
        raise SystemExit(exits.GATE if report.problems else exits.OK)
    with deploying.changing(call.project, target):
        prepared = deploying.plan(call.project, target)
        if not call.json:
            _show(call.console, deploying.report(call.project, prepared))
        with call.progress() as progress:
            for each in deploying.apply(call.project, prepared):
                progress.update("deploying", each.number - (not each.done), each.of, each.change.piece)
        statuses = deploying.await_ready(prepared, wait_s)
    ready = all(each.state == "ready" for each in statuses)
    report = deploying.report(call.project, prepared, statuses)

    def show(console: Console) -> None:
        for each in statuses:
            if each.state != "ready":
                console.print(f"{each.piece} is {each.state}. {each.why}".rstrip(), markup=False)
        if ready:
            where = f" in {report.folder}" if report.folder else ""
            count = f"{len(statuses)} {'piece' if len(statuses) == 1 else 'pieces'}"
            console.print(f"{target} is ready: {count}{where}.", markup=False, soft_wrap=True)

    call.result(report, show)
    raise SystemExit(exits.OK if ready else exits.UNHEALTHY)


def _show(console: Console, planned: DeployReport) -> None:
    if all(each.action == "keep" for each in planned.changes):
        console.print(f"{planned.target}: all is as it should be.", markup=False)
    rows = [
        (_SIGNS[each.action], each.piece, each.why, _needed(each.needs))
        for each in planned.changes
        if each.action != "keep"
    ]
    if rows:
        show_records(console, ("", "piece", "why", "needs"), rows)
    if (cost := planned.cost) is not None:
        if cost.sources:
            span = f"{cost.least:,.2f}" + (f" to {cost.most:,.2f}" if cost.most > cost.least else "")
            console.print(f"A month costs {span} {cost.currency} ({'; '.join(cost.sources)}).", markup=False)
        for each in cost.unknown:
            console.print(f"Price unknown of {each}", style="dim", markup=False)
        if cost.unknown:
            console.print("mainspring prices import, or [profiles.NAME.prices], states one.", style="dim", markup=False)
    for note in planned.notes:
        console.print(f"Note: {note}", style="yellow", markup=False, soft_wrap=True)
    for problem in planned.problems:
        console.print(f"Problem: {problem}", style="red", markup=False)


def _needed(needs: Needs | None) -> str:
    if needs is None:
        return ""
    count = f"{needs.count}" if needs.most <= needs.count else f"{needs.count} to {needs.most}"
    parts = [needs.instance] if needs.instance else []
    parts += [f"{needs.cpu:g} cores"] if needs.cpu else []
    parts += [size_text(needs.memory)] if needs.memory else []
    parts += [f"{needs.gpus} GPU"] if needs.gpus else []
    parts += [f"{size_text(needs.storage)} of storage"] if needs.storage else []
    return f"{count} × {', '.join(parts)}" if parts else ""
