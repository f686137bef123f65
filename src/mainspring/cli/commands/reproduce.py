"""`mainspring reproduce`: repeat a recorded training and compare the results."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20  # differences of a kind


@make("reproduce")
@click.argument("run")
def command(call: Call, *, run: str) -> int:
    """Repeat the training of RUN, and compare parameters, metrics and predictions.

    Uses the recorded git commit with its uncommitted changes, and the pinned versions of the data. Registers nothing.
    Exits with 3 if the results differ.
    """
    from mainspring.operations.reproduce.reproducing import reproduce

    with call.progress() as progress:
        progress.update("reproduce", 0, 100, "find the run")
        found = reproduce(
            call.project,
            run,
            progress=lambda stage, share: progress.update("reproduce", round(share * 100), 100, stage),
        )
        progress.finish("reproduce", "nothing differs" if found.same else "it differs")

    def show(console: Console) -> None:
        code = "as recorded" if found.code_same else f"not as recorded: {found.code_why}"
        console.print(f"[bold]{found.model}, run {found.run_id}[/]")
        console.print(f"  code         {found.code}, {code}")
        console.print(f"  data         dataset commit {found.dataset_commit}")
        for what, each in (
            ("environment", found.environment),
            ("seed", found.seed),
            ("parameters", found.outcome.params),
            ("metrics", found.outcome.metrics),
        ):
            console.print(f"  {what:<12} {'the same' if not each else f'{len(each)} differ'}")
            for one in each[:_SHOWN]:
                console.print(f"    {one.name}: {_said(one.recorded)} -> {_said(one.again)}", markup=False)
        predictions = found.outcome.predictions
        if predictions is not None:
            console.print(
                f"  predictions  {predictions.differing:,} of {predictions.rows:,} differ"
                + (f", by at most {predictions.largest:.3g}" if predictions.differing else "")
            )
        for note in found.notes:
            console.print(f"  note         {note}")
        console.print("No result differs." if found.same else "Results differ.")

    call.result(asdict(found), show)
    return exits.OK if found.same else exits.GATE


def _said(value: object) -> str:
    return "not there" if value is None else str(value)
