"""`mainspring doctor`: check that a project is intact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.findings import Finding


@make("doctor", reads_only=True)
def command(call: Call) -> int:
    """Check definitions, files, catalog, lake, models, log, jobs and processes; exit with 13 if there is a problem."""
    from mainspring.operations.doctor import examine

    findings = examine(call.project)
    well = all(finding.ok for finding in findings)

    def show(console: Console) -> None:
        show_findings(console, findings)
        to_do = any(finding.fix for finding in findings)
        whole = "No damage found, but some steps remain." if to_do else "All is well."
        console.print(whole if well else "Not all is well.", style="bold")

    call.result({"well": well, "findings": findings}, show)
    return exits.OK if well else exits.UNHEALTHY


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print each finding with its mark, and its fix below it."""
    for finding in findings:
        mark = "[red]✗[/]" if not finding.ok else "[yellow]•[/]" if finding.fix else "[green]✓[/]"
        console.print(f"{mark} [bold]{finding.check:<14}[/] ", end="")
        console.print(finding.detail, markup=False)
        if finding.fix:
            console.print(f"  Fix: {finding.fix}", markup=False)
