"""`mainspring search`: tune hyperparameters on the validation rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 10  # trials, the best first


@make("search", charges=True)
@click.argument("model")
@click.option("--trials", type=int, help="Total number of trials; by default the number that the model declares.")
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Number of processes that run trials in parallel."
)
@click.option("--since", help="Use observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option("--show", is_flag=True, help="Show the result of the last finished search, without searching.")
def command(
    call: Call, *, model: str, trials: int | None, workers: int, since: str | None, until: str | None, show: bool
) -> None:
    """Tune the hyperparameters of MODEL within its declared search space; `mainspring train` uses the best.

    Give the same command again to resume an interrupted search.
    """
    from rich.markup import escape

    from mainspring.core.time import parse_instant
    from mainspring.operations.search.searching import last_search, search

    if show:
        report = last_search(call.project, model)
    else:
        with call.progress() as progress:
            progress.update(model, 0, 100, "load the project")
            report = search(
                call.project,
                model,
                trials=trials,
                workers=workers,
                since=None if since is None else parse_instant(since),
                until=None if until is None else parse_instant(until),
                progress=lambda stage, share: progress.update(model, round(share * 100), 100, stage),
            )
            progress.finish(model, f"{len(report.trials)} trials")

    def table(console: Console) -> None:
        sign = -1 if report.direction == "maximize" else 1
        states = [trial["state"] for trial in report.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
        console.print(f"[bold]{report.model}, search {report.run_id}[/]: {counts}")
        complete = [trial for trial in report.trials if trial["state"] == "complete"]
        for trial in sorted(complete, key=lambda trial: sign * trial["value"])[:_SHOWN]:
            params = ", ".join(f"{name} = {value!r}" for name, value in trial["params"].items())
            console.print(f"  {report.metric} {trial['value']:.4f}  trial {trial['number']:<4} {escape(params)}")
        for name, share in sorted(report.importance.items(), key=lambda each: -each[1]):
            console.print(f"  importance {share:.0%}  {escape(name)}")
        console.print(f"Next: mainspring train {report.model}")

    call.result(asdict(report), table)
