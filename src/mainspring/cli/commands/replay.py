"""`mainspring replay`: answer logged predictions again, and compare bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.replay.model import FeatureCheck, Replayed, ReplayReport, Verdict

_COLOURS = {"identical": "green", "within tolerance": "green", "differs": "red", "cannot": "yellow"}
_ROWS = 12  # features in a table


@make("replay")
@click.argument("prediction_id", metavar="[PREDICTION]", required=False)
@click.option("--sample", type=click.IntRange(min=1), help="Replay so many random predictions instead of one.")
@click.option("--endpoint", help="Sample predictions of this endpoint.")
@click.option("--version", help="Sample predictions of this version.")
@click.option("--since", help="Sample predictions from this instant on (ISO 8601).")
@click.option("--until", help="Sample predictions before this instant (ISO 8601).")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--features/--no-features", default=True, show_default=True, help="Also read stored features again, offline."
)
@click.option("--reveal", is_flag=True, help="Decrypt values that identify a person; the audit log records the actor.")
def command(
    call: Call,
    *,
    prediction_id: str | None,
    sample: int | None,
    endpoint: str | None,
    version: str | None,
    since: str | None,
    until: str | None,
    seed: int,
    features: bool,
    reveal: bool,
) -> int:
    """Answer PREDICTION, or a random sample, again with the bundle that made it, and compare bit for bit.

    The model gets the inputs that the log has of it, on one thread. Stored features are read again as of the instant of
    the prediction. Exits with 3 if an answer differs, or cannot be given again.
    """
    from mainspring.core.errors import Invalid

    if (prediction_id is None) == (sample is None):
        raise Invalid(
            "Give the id of one prediction, or the size of a sample.",
            fix="`mainspring replay ID`, or `mainspring replay --sample 1000`.",
        )
    if prediction_id is not None:
        return _one(call, prediction_id, features=features, reveal=reveal)
    assert sample is not None
    return _sample(call, sample, endpoint, version, since, until, seed, features=features, reveal=reveal)


def _one(call: Call, prediction_id: str, *, features: bool, reveal: bool) -> int:
    from msgspec import to_builtins

    from mainspring.operations.replay.replaying import replay

    found = replay(call.project, prediction_id, features=features, reveal=reveal)
    document = to_builtins(found)
    document["verdict"] = dated(document["verdict"], "at")
    call.result(document, lambda console: _show_one(console, found))
    return exits.OK if found.verdict.fine else exits.GATE


def _sample(
    call: Call,
    count: int,
    endpoint: str | None,
    version: str | None,
    since: str | None,
    until: str | None,
    seed: int,
    *,
    features: bool,
    reveal: bool,
) -> int:
    from msgspec import to_builtins

    from mainspring.core.time import parse_instant
    from mainspring.ledger.model import Selection
    from mainspring.operations.replay.replaying import replay_sample

    project = call.project
    if endpoint is not None:
        project.definitions.endpoint(endpoint)
    bounds = [None if text is None else parse_instant(text) for text in (since, until)]
    selection = Selection(endpoint=endpoint, version=version, since=bounds[0], until=bounds[1])
    project.predictions.compact()
    with call.progress() as progress:
        report = replay_sample(
            project,
            selection,
            count,
            seed=seed,
            features=features,
            reveal=reveal,
            progress=lambda done, total: progress.update("replay", done, total),
        )
        progress.finish("replay", f"{report.predictions:,} predictions")
    document = to_builtins(report)
    for name in ("differing", "examples"):
        document[name] = [dated(each, "at") for each in document[name]]
    call.result(document, lambda console: _show_sample(console, report))
    return exits.OK if report.fine else exits.GATE


def _show_one(console: Console, found: Replayed) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mainspring.core.time import format_instant

    verdict, made_by = found.verdict, found.provenance
    console.print(f"[bold {_COLOURS[verdict.outcome]}]{_said(verdict)}[/]")
    if verdict.why:
        console.print(f"  {escape(verdict.why)}" + (f" Fix: {escape(verdict.fix)}" if verdict.fix else ""))
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(
        "made", f"{format_instant(verdict.at)} by {verdict.model} {verdict.version} behind {verdict.endpoint}"
    )
    table.add_row("bundle", f"{verdict.digest}, {made_by.flavour or 'gone'}")
    table.add_row("signature", made_by.signature)
    for name, value in (("run", made_by.run_id), ("data", made_by.dataset_commit), ("code", made_by.code_version)):
        table.add_row(name, escape(value) or "not recorded")
    table.add_row("runtime", _versions(made_by.runtime))
    if made_by.trained_with:
        table.add_row("trained with", _versions(made_by.trained_with))
    for name, pair in verdict.outputs.items():
        table.add_row(escape(name), f"{pair.logged!r} logged, {pair.again!r} again")
    for text in made_by.missing:
        table.add_row("missing", escape(text))
    console.print(table)
    if verdict.features is not None:
        _show_features(console, verdict.features)
    for name, value in list(found.inputs.items())[:_ROWS]:
        console.print(f"  {escape(name)} = {escape(_shown(value))}", style="dim")
    if len(found.inputs) > _ROWS:
        console.print(f"  and {len(found.inputs) - _ROWS} more inputs (--json lists all)", style="dim")


def _show_features(console: Console, check: FeatureCheck) -> None:
    from rich.markup import escape

    if check.why:
        console.print(f"Features were not compared. {escape(check.why)}" + (f" {check.fix}" if check.fix else ""))
        return
    equal = check.compared - len(check.differing)
    console.print(f"Features: {equal} of {check.compared} equal to the offline read of that instant.")
    for name, pair in check.differing.items():
        status = f" ({check.statuses[name]} in the online store)" if name in check.statuses else ""
        console.print(f"  {escape(name)}: {pair.logged!r} seen, {pair.again!r} offline{status}")


def _show_sample(console: Console, report: ReplayReport) -> None:
    from rich.markup import escape

    if not report.predictions:
        console.print("No predictions match.")
        return
    parts = [f"{count:,} {outcome}" for outcome, count in report.outcomes.items() if count]
    console.print(f"[bold]{report.predictions:,} predictions: {', '.join(parts)}[/]  ({report.seconds:.1f} s)")
    for name, outcomes in report.by_version.items():
        console.print(f"  {escape(name)}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()))
    if report.alone or report.in_batch:
        console.print(
            f"  {report.alone:,} gave their bits only alone, {report.in_batch:,} only beside the rows of their batch."
        )
    if report.largest is not None:
        console.print(f"  largest difference {report.largest:.3g}")
    for verdict in report.differing:
        for name, pair in verdict.outputs.items():
            console.print(f"  {verdict.prediction_id} {escape(name)}: {pair.logged!r} logged, {pair.again!r} again")
    for missing in report.missing:
        fix = f" Fix: {escape(missing.fix)}" if missing.fix else ""
        console.print(f"  {missing.predictions:,} cannot be replayed: {escape(missing.why)}{fix}")
    if report.features_compared:
        console.print(
            f"Features: {report.features_equal:,} of {report.features_compared:,} values equal to the offline read."
        )
    for name, count in report.features_differing.items():
        console.print(f"  {escape(name)} differs in {count:,}")
    for reason, count in report.features_skipped.items():
        console.print(f"  {count:,} not compared: {escape(reason)}")
    console.print(_versions(report.runtime), style="dim")


def _said(verdict: Verdict) -> str:
    if verdict.outcome == "identical":
        how = {0: "", 1: " alone"}.get(verdict.rows, f" among the {verdict.rows} rows of its batch")
        return f"Identical, bit for bit{how}."
    if verdict.outcome == "cannot":
        return "Cannot be replayed."
    largest = "" if verdict.largest is None else f", largest difference {verdict.largest:.3g}"
    where = "within" if verdict.outcome == "within tolerance" else "beyond"
    return f"{verdict.outcome.capitalize()}: {where} the bundle's tolerance of {verdict.tolerance:g}{largest}."


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
