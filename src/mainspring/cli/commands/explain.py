"""`mainspring explain`: why a prediction was what it was, and what a model pays attention to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.governance.counterfactual import Counterfactuals
    from mainspring.governance.importance import Dependence, ModelExplanation
    from mainspring.governance.model import Importance
    from mainspring.operations.explaining import ExplainedPrediction, KeptOne

_PREDICTION = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}", re.IGNORECASE)
_BAR = 24  # characters
_SHOWN = 20  # columns


@make("explain")
@click.argument("target", metavar="PREDICTION|MODEL")
@click.option("--reveal", is_flag=True, help="Decrypt values that identify a person; the audit log records the actor.")
@click.option("--sampled", is_flag=True, help="Estimate the contributions to the answer, for any model of columns.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Answers that --sampled may ask the model for.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Longest duration of --sampled."
)
@click.option("--wanted", default="", help="Look for changes with which the answer is another: 'probability < 0.3'.")
@click.option(
    "--mutable",
    multiple=True,
    metavar="INPUT[:DIRECTION]",
    help="An input that --wanted may change: any, increase or decrease. By default those that the model declares.",
)
@click.option(
    "--changes", type=click.IntRange(min=1), default=3, show_default=True, help="Most inputs that --wanted changes."
)
@click.option(
    "--rows", type=click.IntRange(min=1), default=1000, show_default=True, help="Held-out rows to explain MODEL on."
)
@click.option("--column", "columns", multiple=True, help="Show how MODEL's answer depends on this column. Repeatable.")
def command(
    call: Call,
    *,
    target: str,
    reveal: bool,
    sampled: bool,
    budget: int,
    seconds: float,
    wanted: str,
    mutable: tuple[str, ...],
    changes: int,
    rows: int,
    columns: tuple[str, ...],
) -> None:
    """Explain the prediction with the id PREDICTION, or the version MODEL, MODEL:VERSION or MODEL@ALIAS.

    Of a prediction: what the model saw, how much each input moved the answer, and the answer again. Contributions of
    trees and linear models are exact. Of a model: which columns move its answers, how much worse it answers without
    each, and how the answer depends on a column, on held-out rows.
    """
    from msgspec import to_builtins

    from mainspring.operations import explaining

    if _PREDICTION.fullmatch(target):
        found = explaining.explain_prediction(
            call.project,
            target,
            revealed=reveal,
            sampled=sampled,
            calls=budget,
            seconds=seconds,
            wanted=wanted,
            mutable={name: way or "any" for name, _, way in (each.partition(":") for each in mutable)} or None,
            changes=changes,
        )
        document = to_builtins(found)
        document["verdict"] = dated(document["verdict"], "at")
        call.result(dated(document, "at"), lambda console: _show_prediction(console, found))
    else:
        whole = explaining.explain_model(call.project, target, rows=rows, columns=columns or None)
        call.result(to_builtins(whole), lambda console: _show_model(console, whole, columns))


def _show_prediction(console: Console, found: ExplainedPrediction) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mainspring.core.time import format_instant

    explanation = found.explanation
    console.print(
        f"[bold]{escape(found.prediction_id)}[/], made {format_instant(found.at)} by {found.model} {found.version} "
        f"behind {found.endpoint}"
    )
    name = explanation.leading
    output = explanation.outputs[name]
    console.print(f"{escape(name)}: [bold]{_number(found.outputs.get(name))}[/]; {_again(found)}")
    table = Table(box=None, pad_edge=False)
    for heading, align in (("input", "left"), ("value", "right"), ("", "left"), ("contribution", "right")):
        table.add_column(heading, justify=align)  # type: ignore[arg-type]
    parts = sorted(output.contributions.items(), key=lambda item: -abs(item[1]))
    largest = max((abs(value) for _, value in parts), default=0.0)
    for column, value in parts[:_SHOWN]:
        error = f" ± {1.96 * output.errors[column]:.2g}" if column in output.errors else ""
        status = f" ({found.statuses[column]})" if found.statuses.get(column, "PRESENT") != "PRESENT" else ""
        table.add_row(
            escape(column),
            escape(f"{_number(found.inputs.get(column))}{status}"),
            _bar(value, largest),
            f"{value:+.4g}{error}",
        )
    if len(parts) > _SHOWN:
        rest = sum(value for _, value in parts[_SHOWN:])
        table.add_row(f"{len(parts) - _SHOWN} more", "", "", f"{rest:+.4g}")
    console.print(table)
    console.print(
        f"{output.base:.4g} on average {output.total - output.base - output.residual:+.4g} "
        f"= {output.total:.4g}, {explanation.method.unit}; residual {output.residual:.2g}"
    )
    console.print(f"Method: {explanation.method.described(exact=explanation.exact)}", style="dim")
    for each in found.kept:
        console.print(f"Kept in the log ({each.origin}): {_compared(each)}.")
    if found.why:
        console.print(f"This is the kept explanation, not computed again: {escape(found.why)}")
    if found.counterfactuals is not None:
        _show_counterfactuals(console, found.counterfactuals, found.inputs)


def _show_counterfactuals(console: Console, found: Counterfactuals, inputs: dict[str, Any]) -> None:
    from rich.markup import escape

    if found.met:
        console.print(f"The answer is as wanted already: {escape(str(found.target))}.")
        return
    if not found.found:
        console.print(
            f"[bold]Nothing found[/] for {escape(str(found.target))} within {found.most} changes of "
            f"{escape(', '.join(found.mutable))}, after {found.tried:,} answers."
        )
        return
    console.print(f"[bold]{escape(str(found.target))}[/], each answered by the model ({found.tried:,} answers):")
    for each in found.found:
        parts = [f"{name}: {_number(inputs[name])} → {_number(value)}" for name, value in each.changes.items()]
        console.print(f"  {each.answer:.4g} with {escape(', '.join(parts))}")


def _show_model(console: Console, found: ModelExplanation, columns: tuple[str, ...]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{found.model} {found.version}[/] on {found.rows:,} held-out rows")
    table = Table(box=None, pad_edge=False)
    for heading, align in (("input", "left"), ("moves the answer by", "left"), ("", "left"), ("without it", "left")):
        table.add_column(heading, justify=align)  # type: ignore[arg-type]
    weights = [_weight(each) for each in found.importances]
    largest = max(weights, default=0.0)
    for each, weight in list(zip(found.importances, weights, strict=True))[:_SHOWN]:
        table.add_row(
            escape(each.column), _interval(each.contribution), _bar(weight, largest), _interval(each.permutation)
        )
    console.print(table)
    if len(found.importances) > _SHOWN:
        console.print(f"{len(found.importances) - _SHOWN} more inputs (--json lists all)", style="dim")
    if found.method is not None:
        console.print(
            f"Moves: mean absolute contribution, {found.method.unit}. Method: {found.method.described(exact=True)}",
            style="dim",
        )
    else:
        console.print(escape(found.why), style="dim")
    console.print(
        "Without it: increase of the squared error when the input's values are permuted. 95 % intervals.", style="dim"
    )
    for dependence in found.dependences if columns else ():
        _show_dependence(console, dependence)


def _show_dependence(console: Console, found: Dependence) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(
        f"[bold]{escape(found.output)} by {escape(found.column)}[/]; interaction with other inputs "
        f"{found.interaction:.0%}"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("value", "mean", "", "deciles 1 and 9 of the rows"):
        table.add_column(heading)
    low, high = min(found.mean), max(found.mean)
    for value, mean, first, last in zip(found.values, found.mean, found.low, found.high, strict=True):
        bar = _bar(mean - low, high - low)
        table.add_row(escape(_number(value)), f"{mean:.4g}", bar, f"{first:.4g} to {last:.4g}")
    console.print(table)


def _again(found: ExplainedPrediction) -> str:
    if found.verdict.outcome == "identical":
        return "the model gives it again, bit for bit"
    return f"again: {found.verdict.outcome}" + (f", {found.verdict.why}" if found.verdict.why else "")


def _compared(kept: KeptOne) -> str:
    if kept.agrees is None:
        return "not compared, by another method"
    words = "it agrees" if kept.agrees else "[bold]it differs[/]"
    return f"{words}, largest difference {kept.difference:.2g}"


def _bar(value: float, largest: float) -> str:
    length = round(_BAR * abs(value) / largest) if largest > 0 else 0
    return f"[{'red' if value < 0 else 'green'}]{('−' if value < 0 else '█') * length}[/]" if length else ""


def _weight(each: Importance) -> float:
    first = each.contribution or each.permutation
    return 0.0 if first is None else first.value


def _interval(each: Any) -> str:
    return "" if each is None else f"{each.value:.4g} ({each.low:.4g} to {each.high:.4g})"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
