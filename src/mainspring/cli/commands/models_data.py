"""`mainspring models label-issues|near-duplicates|influence|exposure`: searches of a model's training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@make("label-issues")
@click.argument("model")
@click.option("--since", help="Judge observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option(
    "--folds", type=click.IntRange(2), default=5, show_default=True, help="Fits, each without a block of rows."
)
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="Rows to print; --json has all.")
@click.option("--reveal", is_flag=True, help="Show keys that identify a person too; the audit log records the actor.")
def label_issues(
    call: Call, *, model: str, since: str | None, until: str | None, folds: int, most: int, reveal: bool
) -> None:
    """List the rows of MODEL's training data whose labels are probably wrong, the least plausible first.

    Each row is judged by a fit without it, by confident learning. Nothing is changed; the run keeps them all in a file.
    """
    from mainspring.core.time import format_instant, parse_instant
    from mainspring.operations.data_inspection import label_issues as find

    with call.progress() as progress:
        progress.update("label issues", 0, 100, "begin")
        run, found = find(
            call.project,
            model,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            folds=folds,
            reveal=reveal,
            progress=lambda stage, share: progress.update("label issues", round(share * 100), 100, stage),
        )
        progress.finish("label issues", f"{len(found.suspects):,} of {found.rows:,} rows")

    def show(console: Console) -> None:
        console.print(f"{len(found.suspects):,} of {found.rows:,} labels of {model} are probably wrong (run {run}).")
        if not found.suspects:
            return
        keys = list(found.suspects[0].keys)
        rows = [
            (*map(str, each.keys.values()), format_instant(each.at), str(each.label), str(each.suggested),
             f"{each.confidence:.3f}", "yes" if each.repeats else "")
            for each in found.suspects[:most]
        ]  # fmt: skip
        show_records(console, (*keys, "at", "label", "suggested", "confidence", "same features"), rows)
        for place, given in enumerate(found.classes):
            wrong = sum(found.joint[place]) - found.joint[place][place]
            if wrong >= 0.5:
                console.print(f"About {wrong:,.0f} rows with the label {given} belong to another class.")

    document = {
        "model": model,
        "run": run,
        "rows": found.rows,
        "classes": list(found.classes),
        "joint": [list(row) for row in found.joint],
        "suspects": [
            {
                "keys": each.keys,
                "at": format_instant(each.at),
                "label": each.label,
                "suggested": each.suggested,
                "confidence": each.confidence,
                "repeats": each.repeats,
            }
            for each in found.suspects
        ],
    }
    call.result(document, show)


@make("near-duplicates")
@click.argument("model")
@click.option("--since", help="Compare observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option(
    "--threshold", type=click.FloatRange(0.8, 1), default=0.95, show_default=True,
    help="Least similarity of two rows' features; 1 for equal ones.",
)  # fmt: skip
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="Rows to print; --json has all.")
@click.option("--reveal", is_flag=True, help="Show keys that identify a person too; the audit log records the actor.")
def near_duplicates(
    call: Call, *, model: str, since: str | None, until: str | None, threshold: float, most: int, reveal: bool
) -> None:
    """List the rows of MODEL's training data that nearly repeat an earlier row, those across its parts first.

    A held-out row that repeats a training row makes the model look better than it is. Nothing is changed.
    """
    from mainspring.core.time import format_instant, parse_instant
    from mainspring.operations.data_inspection import near_duplicates as find
    from mainspring.training.near_duplicates import PARTS, Row

    with call.progress() as progress:
        progress.update("near-duplicates", 0, 100, "begin")
        run, found = find(
            call.project,
            model,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            threshold=threshold,
            reveal=reveal,
            progress=lambda stage, share: progress.update("near-duplicates", round(share * 100), 100, stage),
        )
        progress.finish("near-duplicates", f"{len(found.found):,} rows")

    def named(row: Row) -> str:
        return " ".join((*map(str, row.keys.values()), format_instant(row.at)))

    def show(console: Console) -> None:
        counts = [
            (part, f"{found.rows[part]:,}", f"{found.repeats[part]:,}", f"{found.of_training[part]:,}")
            for part in PARTS
        ]  # fmt: skip
        show_records(console, ("part", "rows", "repeat an earlier row", "a training row"), counts)
        across = sorted(found.found, key=lambda each: each.row.part == each.of.part)
        rows = [
            (named(each.row), each.row.part, str(each.row.label), named(each.of), each.of.part, str(each.of.label),
             f"{each.similarity:.3f}")
            for each in across[:most]
        ]  # fmt: skip
        if rows:
            show_records(console, ("row", "part", "label", "repeats", "its part", "its label", "similarity"), rows)
        for row, count in found.most_repeated:
            if count > 2:
                console.print(f"{count:,} rows repeat {named(row)} ({row.part}).", markup=False)

    def document(row: Row) -> dict[str, Any]:
        return {"keys": row.keys, "at": format_instant(row.at), "part": row.part, "label": row.label}

    call.result(
        {
            "model": model,
            "run": run,
            "threshold": threshold,
            "rows": found.rows,
            "repeats": found.repeats,
            "of_training": found.of_training,
            "most_repeated": [{"row": document(row), "count": count} for row, count in found.most_repeated],
            "found": [
                {"row": document(each.row), "of": document(each.of), "similarity": each.similarity}
                for each in found.found
            ],
        },
        show,
    )


@make("influence")
@click.argument("model")
@click.option(
    "--by", required=True, metavar="SOURCE[.COLUMN]", help="Take the rows of each value as a group; or of each batch."
)
@click.option("--since", help="Use observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option("--metric", default="", help="Metric to compare; by default log_loss, or mae of a regression.")
@click.option("--most", type=click.IntRange(1), default=10, show_default=True, help="Groups, those with most rows.")
def influence(call: Call, *, model: str, by: str, since: str | None, until: str | None, metric: str, most: int) -> None:
    """List what groups of rows do to MODEL, those first without which it is better.

    The model is fitted without each group, as if its rows had never been ingested, and judged on held-out rows of the
    others. Nothing is changed; `mainspring train --without` trains a version without a group.
    """
    from mainspring.core.time import parse_instant
    from mainspring.operations.data_inspection import influence as find
    from mainspring.operations.ingest import WITHHELD

    with call.progress() as progress:
        progress.update("influence", 0, 100, "begin")
        run, name, found = find(
            call.project,
            model,
            by,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            metric=metric,
            most=most,
            progress=lambda stage, share: progress.update("influence", round(share * 100), 100, stage),
        )
        progress.finish("influence", f"{len(found):,} groups")

    def show(console: Console) -> None:
        rows = [
            (str(each.group), f"{each.rows:,}", each.why_not or f"{each.gain:+.5f}",
             "" if each.low is None else f"{each.low:+.5f} to {each.high:+.5f}", "harmful" if each.harmful else "")
            for each in found
        ]  # fmt: skip
        show_records(console, ("without", "rows", f"gain of {name}", "95 % interval", ""), rows)
        for each in found:
            if each.harmful and each.group.value != WITHHELD:
                console.print(f"Next: mainspring train {model} --without {each.group}", markup=False)

    groups = [
        {
            "without": str(each.group), "rows": each.rows, "fitted_on": each.fitted_on, "judged_on": each.judged_on,
            "value": each.value, "gain": each.gain, "low": each.low, "high": each.high, "harmful": each.harmful,
            "why_not": each.why_not,
        }
        for each in found
    ]  # fmt: skip
    call.result({"model": model, "run": run, "metric": name, "groups": groups}, show)


@make("exposure")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.argument("planted", type=click.Path(path_type=Path))
@click.argument("controls", type=click.Path(path_type=Path))
def exposure(call: Call, *, reference: str, planted: Path, controls: Path) -> None:
    """Tell whether a version was trained on PLANTED rows, by its losses on them and on CONTROLS.

    Both files have the inputs by their full names and `label`, and rows drawn in the same way, of which chance decided
    which were planted.
    """
    from dataclasses import asdict

    from mainspring.operations.models.exposing import exposed

    version, found = exposed(call.project, reference, planted, controls)

    def show(console: Console) -> None:
        console.print(
            f"Mean exposure of {found.planted:,} rows among {found.controls:,}: {found.mean:.2f} bits, 1.44 by chance; "
            f"the largest {found.largest:.2f}."
        )
        console.print(f"Rows that were not learned lie so low with a probability of {found.chance:.4f}.")

    call.result({"model": version.model, "version": version.version, **asdict(found)}, show)


COMMANDS = (label_issues, near_duplicates, influence, exposure)
