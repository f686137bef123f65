"""`mainspring ci`: the model pipeline."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.core.errors import MainspringError

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.ci.model import Stage

_MARKS = {"passed": "[green]✓[/]", "warned": "[yellow]![/]", "failed": "[red]✗[/]", "skipped": "[dim]–[/]"}


@make("ci")
@click.argument("models", nargs=-1)
@click.option(
    "--share", default=0.2, show_default=True, help="Share of the observations that the candidate is trained on."
)
@click.option("--deploy", is_flag=True, help="Go on to staging and production: register and promote a version.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for report.md, .xml and .json."
)
@click.option("--emit", type=click.Choice(("github", "gitlab")), help="Write that system's workflow instead.")
@click.option("--branch", default="main", show_default=True, help="Branch from which the workflow deploys.")
def command(
    call: Call,
    *,
    models: tuple[str, ...],
    share: float,
    deploy: bool,
    report: Path | None,
    emit: str | None,
    branch: str,
) -> int:
    """Run the model pipeline on the project as it is: seven stages, until one fails; then exit with 3.

    Commit, tests of data and code, training on a subset, evaluation against baseline and champion, validation; with
    --deploy also staging with recorded traffic, and production.
    """
    if emit is not None:
        return _emit(call, emit, branch)
    from mainspring.operations.ci.report import write_report
    from mainspring.operations.ci.running import run_ci

    def ended(stage: Stage) -> None:
        call.say(f"{_MARKS[stage.state]} [bold]{stage.name}[/] ({stage.seconds:.1f} s)")
        for check in stage.checks:
            model = f" [dim]{escape(check.model)}[/]" if check.model and several else ""
            call.say(f"    {_MARKS[check.state]} {escape(check.name)}{model}: {escape(check.detail)}", soft_wrap=True)
            if check.fix and check.state in ("failed", "warned"):
                call.say(f"      Fix: {escape(check.fix)}", soft_wrap=True)

    several = len(models or _declared(call)) != 1
    found = run_ci(call.project, models, share=share, deploy=deploy, ended=ended)
    written = [] if report is None else write_report(found, report)

    def show(console: Console) -> None:
        verdict = "[bold green]The pipeline passed.[/]" if found.passed else "[bold red]The pipeline failed.[/]"
        console.print(verdict + (f" Report: {written[0]}" if written else ""))

    call.result(found, show)
    return exits.OK if found.passed else exits.GATE


def _declared(call: Call) -> Collection[str]:
    """Return the names of the project's models; none if its definitions cannot be loaded, which the run reports."""
    try:
        return call.project.definitions.models
    except MainspringError:
        return ()


def _emit(call: Call, system: str, branch: str) -> int:
    from mainspring.operations.ci.workflows import emit

    path = emit(call.project.settings.root, system, profile=call.profile or "", branch=branch)
    settings = call.project.settings
    call.result({"system": system, "path": str(path)}, lambda console: console.print(f"Wrote {path}.", soft_wrap=True))
    if settings.catalog.scheme == "sqlite":
        note = f"Note: the data of profile {settings.profile!r} stay on this machine, so the workflow finds none there."
        call.say(f"{note} Give a profile with servers: mainspring ci --emit {system} --profile NAME", soft_wrap=True)
    return exits.OK
