"""`mainspring demo`: the whole life cycle, on the flights of 2013; or answers from the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.demo.handbook import HandbookSummary
    from mainspring.operations.demo.walkthrough import Summary


@make("demo")
@click.option("--keep", is_flag=True, help="Keep the project running until Ctrl-C.")
@click.option("--rag", is_flag=True, help="Instead, search the documentation and answer questions from it.")
def command(call: Call, *, keep: bool, rag: bool) -> int:
    """Run the flights example from ingestion to monitoring: ingest, train, gate, serve, monitor.

    Trains on January to June of 2013, then replays July and August as real requests. Uses the flights project in the
    current folder if there is one, else creates the folder `flights`.

    With --rag it creates the folder `handbook`: this documentation in chunks with vectors, measured by questions whose
    pages are known, and questions that are answered with citations, without network. Answers quote their sources
    until the project names a language model.
    """
    from mainspring.operations.demo import walkthrough
    from mainspring.operations.demo.example import project_folder
    from mainspring.operations.keys import console_link
    from mainspring.processes.supervisor import Supervisor

    call.folder = project_folder((call.folder or Path.cwd()).resolve(), "handbook" if rag else "flights")
    if rag:
        _answers(call, keep=keep)
        return exits.OK
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


def _answers(call: Call, *, keep: bool) -> None:
    from mainspring.operations.demo.handbook import handbook_demo
    from mainspring.operations.keys import console_link
    from mainspring.processes.supervisor import Supervisor

    with call.progress() as progress:
        summary = handbook_demo(call.project, progress.update, progress.finish)
        progress.close()
    if not keep:
        call.result(summary, lambda console: _show_answers(console, summary, summary.console))
        return
    supervisor = Supervisor(call.project)
    with supervisor.heeding(), supervisor.running():
        link = console_link(call.project)
        call.result(summary, lambda console: _show_answers(console, summary, link))
        supervisor.wait()


def _show_answers(console: Console, found: HandbookSummary, link: str) -> None:
    console.print(f"\n{found.pages} pages in {found.chunks:,} chunks; the search for {found.questions} known pages:")
    for name in ("recall@10", "mrr@10"):
        figure = found.figures[name]
        interval = "" if figure.low is None else f" ({figure.low:.2f} to {figure.high:.2f})"
        console.print(f"  {name} [bold]{figure.value or 0.0:.2f}[/]{interval}", highlight=False)
    for each in found.asked:
        console.print(f"\n[bold]{each.question}[/]")
        console.print(each.answer, markup=False, highlight=False)
        for cited in each.citations:
            headings = " > ".join(cited.headings)
            console.print(
                f"  [{cited.number}] {cited.page}, characters {cited.start} to {cited.end}: {headings}",
                markup=False, highlight=False, style="dim", soft_wrap=True,
            )  # fmt: skip
    console.print(f"\nTook {found.seconds:.1f} s. Console: {link}", soft_wrap=True, highlight=False)
    console.print("Try next:")
    for line in ("mainspring answers ask handbook QUESTION", "mainspring collections search handbook QUERY"):
        console.print(f"  {line}", soft_wrap=True)


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
