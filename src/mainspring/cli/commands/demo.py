"""`mainspring demo`: the whole life cycle, on the flights of 2013."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.demo.walkthrough import Summary


@make("demo")
@click.option("--keep", is_flag=True, help="Keep the project running until Ctrl-C.")
def command(call: Call, *, keep: bool) -> int:
    """Run the flights example from ingestion to monitoring: ingest, train, gate, serve, monitor.

    Trains on January to June of 2013, then replays July and August as real requests. Uses the flights project in the
    current folder if there is one, else creates the folder `flights`.
    """
    from mainspring.operations.demo import walkthrough
    from mainspring.operations.keys import console_link
    from mainspring.processes.supervisor import Supervisor

    call.folder = walkthrough.project_folder((call.folder or Path.cwd()).resolve())
    project = call.project
    with call.progress() as progress:

        def key(token: str | None) -> None:
            if token is None:
                progress.say(
                    "\nThe administrator's key was shown at an earlier start. To create another, run\n  mainspring "
                    "keys create NAME --scope admin\n"
                )
            else:
                progress.say(f"\nThe administrator's key (shown only once):\n  {token}\n")

        shown = walkthrough.Shown(progress.update, progress.finish, key)
        with walkthrough.demo(project, shown, lambda opened: Supervisor(opened).running()) as summary:
            progress.close()
            link = console_link(project) if keep else None
            call.result(summary, lambda console: _show(console, summary, link))
            if keep:
                told = Supervisor(project)
                with told.heeding():
                    told.wait()
    return exits.OK if summary.gate == "passed" else exits.GATE


def _show(console: Console, found: Summary, link: str | None) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2))
    live = "–" if found.live_auc is None else f"{found.live_auc:.4f}"
    rows = [
        ("ingested", f"{found.rows_ingested:,} rows, {found.rows_quarantined:,} in the quarantine"),
        ("trained", f"{found.training_rows:,} rows, {found.holdout_rows:,} held out"),
        ("AUC", f"[bold]{found.auc:.4f}[/] held out, {found.baseline_auc:.4f} from the schedule alone"),
        ("gate", f"{found.gate}; version {found.model_version}, bundle {found.bundle_digest[:12]}"),
        ("served", f"{found.predictions:,} predictions in {found.requests:,} requests, {found.errors} errors"),
        ("latency", f"p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms a request"),
        ("live AUC", f"[bold]{live}[/] on {found.labels_joined:,} labels ({found.label_coverage:.1%} of predictions)"),
        ("drift", _few(found.drifted_columns)),
        (
            "skew",
            (
                f"{found.features_differing:,} of {found.features_compared:,} served feature values differ from "
                "training's"
            ),
        ),
        ("took", f"{found.seconds:.1f} s"),
    ]
    for name, text in rows:
        table.add_row(f"[dim]{name}[/]", text)
    console.print(table)
    where = (
        f"{found.console} (after `mainspring up`)" if link is None else f"{link}\n  (logs in once, within ten minutes)"
    )
    console.print(f"\nConsole: {where}", soft_wrap=True, markup=False)
    console.print("Try next:")
    for line in (
        "mainspring up",
        "mainspring predict late-arrival flight=2013-09-01-UA-1-EWR origin=EWR carrier=UA dest=LAX "
        "distance=2454 scheduled_departure=2013-09-02T06:00:00Z",
        "mainspring status",
    ):
        console.print(f"  {line}", soft_wrap=True)


def _few(names: list[str], most: int = 4) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - most} more (summer differs from January to June)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
