"""`mainspring evidence`: what serves the controls of a framework, measured in this installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

FRAMEWORKS = ("ccpa", "eu-ai-act", "gdpr", "hipaa", "iso-42001", "nist-ai-rmf", "pci-dss", "sox")


@make("evidence")
@click.argument("framework", type=click.Choice(FRAMEWORKS))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file, .html or .json."
)
def command(call: Call, *, framework: str, output: Path | None) -> int:
    """Measure what serves each control of FRAMEWORK; exit with 13 if a measure fails that should hold.

    A control is in force, partly so, off by a setting, or open where Mainspring has nothing for it; and each says what
    remains to be done by people. The document is signed by the project's key, in the JSON Signature Format. The console
    shows the newest of each framework.
    """
    from mainspring.governance.evidence import State
    from mainspring.operations.evidence import reporting

    project = call.project
    found = reporting.report(project, framework)
    reporting.keep(project, found)
    if output is not None:
        reporting.write_report(project, found, output)

    def show(console: Console) -> None:
        controls = found.framework.controls
        rows = [
            (control.ref, control.about, str(found.state(control)), ", ".join(control.measures)) for control in controls
        ]
        show_records(console, ("control", "about", "state", "measures"), rows)
        counted = ", ".join(f"{count} {state}" for state, count in found.counts.items())
        console.print(f"{found.framework.name}: {counted}." + (f" {output} is signed." if output else ""), markup=False)
        for each in found.measured.values():
            if each.state is State.FAILS:
                console.print(f"[red]✗[/] {each.measure.name}: ", end="")
                console.print(each.found, markup=False)

    call.result(reporting.signed(project, found), show)
    return exits.UNHEALTHY if any(each.state is State.FAILS for each in found.measured.values()) else exits.OK
