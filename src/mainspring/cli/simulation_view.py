"""A simulation's report for people: a table of policies, their costs against their p99, and the chosen one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.cli.tables import figure, show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.serving.simulation_report import Outcome, SimulationReport

_BLOCKS = " ▁▂▃▄▅▆▇█"
_CURVE = 20  # characters
_WIDE, _TALL = 56, 8


def show(console: Console, report: SimulationReport) -> None:
    """Print a report."""
    console.print(
        f"{report.requests:,} requests in {report.seconds:,.0f} s ({report.requests / report.seconds:,.1f}/s) to "
        f"{report.endpoint}, version {report.version}; deadline {report.deadline_ms:g} ms, of which "
        f"{report.margin:.0%} are kept free.",
        markup=False,
    )
    priced = any(each.hour is not None for each in report.outcomes)
    rows = [(f"{number}", *_row(each, priced)) for number, each in enumerate(report.outcomes, 1)]
    columns = (
        "",
        "policy",
        "machine",
        "in time",
        "p50 ms",
        "p99 ms",
        "goodput/s",
        *(("month",) if priced else ()),
        "executors",
    )
    show_records(console, columns, rows, right=("in time", "p50 ms", "p99 ms", "goodput/s", "month"))
    console.print(picture(report), markup=False)
    if report.best is None:
        console.print(f"No policy answers {report.wanted:.1%} in time.", style="yellow", markup=False)
    else:
        _show_best(console, report, report.outcomes[report.best])
    for part in report.measured:
        console.print(
            f"Measured: {part.name}: {figure(part.value, 3)} {part.unit} ({part.how}).", style="dim", markup=False
        )
    for each in report.assumed:
        console.print(f"Assumed: {each}.", style="dim", markup=False)
    if report.check is not None:
        console.print(f"Beside a real gateway, {report.check.seconds:.0f} s:", markup=False)
        names = [
            (name, f"{report.check.predicted[name]:,.2f}", f"{value:,.2f}", f"{report.check.errors[name]:.0%}")
            for name, value in report.check.measured.items()
        ]
        show_records(console, ("", "predicted", "measured", "off by"), names, right=("predicted", "measured", "off by"))


def _show_best(console: Console, report: SimulationReport, best: Outcome) -> None:
    change = report.change
    console.print(
        f"The cheapest that answers {report.wanted:.1%} in time: {best.policy} on {best.machine} ({best.safely:.2%} "
        f"within {(1 - report.margin) * report.deadline_ms:g} ms).",
        markup=False,
    )
    least, most = best.candidate.executors
    if change is None:
        pair = f"executors=({least}, {most})"
        console.print(f"  To have it: ms.Endpoint({report.endpoint!r}, ..., {pair})", style="dim", markup=False)
    elif not change.diff:
        console.print(f"  {change.file}, line {change.line} says so already.", style="dim", markup=False)
    else:
        console.print(change.diff, markup=False)
        done = "Written. Next: mainspring apply" if change.written else "Not written: add --yes."
        console.print(done, markup=False)
    if best.candidate.machine or best.candidate.replicas != (1, 1):
        console.print("  Replicas and machines are the deployment's, not the definition's.", style="dim", markup=False)


def picture(report: SimulationReport) -> str:
    """Return the policies by cost and p99, as text: numbered as in the table."""
    points = [
        (each.machine_hours if each.hour is None else each.month or 0.0, each.p99_ms, f"{number}")
        for number, each in enumerate(report.outcomes, 1)
        if each.p99_ms is not None
    ]
    priced = any(each.hour is not None for each in report.outcomes)
    return scattered(
        points, across=f"{report.outcomes[0].currency} a month" if priced else "machine hours", up="p99 ms"
    )


def _row(outcome: Outcome, priced: bool) -> tuple[str, ...]:
    return (
        outcome.policy,
        outcome.machine,
        f"{outcome.in_time:.2%}",
        "–" if outcome.p50_ms is None else f"{outcome.p50_ms:,.1f}",
        "–" if outcome.p99_ms is None else f"{outcome.p99_ms:,.1f}",
        f"{outcome.goodput:,.1f}",
        *((("–" if outcome.month is None else f"{outcome.month:,.0f} {outcome.currency}"),) if priced else ()),
        _drawn(outcome.curve),
    )


def _drawn(curve: list[int]) -> str:
    """Return the executors over time as a line of blocks."""
    most, step = max(curve, default=0), -(-len(curve) // _CURVE)
    parts = [max(curve[at : at + step]) for at in range(0, len(curve), step)]
    return "".join(_BLOCKS[round(each / most * (len(_BLOCKS) - 1)) if most else 0] for each in parts) + f" {most}"


def scattered(points: Sequence[tuple[float, float, str]], *, across: str, up: str) -> str:
    """Return marks at their places as text, the second number on a logarithmic scale.

    A mark whose place is taken goes beside it.
    """
    if not points:
        return ""
    xs, ys = [x for x, _, _ in points], [math.log(max(y, 1e-3)) for _, y, _ in points]
    rows = [[" "] * _WIDE for _ in range(_TALL)]
    for x, y, (_, _, mark) in zip(xs, ys, points, strict=True):
        row = rows[_TALL - 1 - round(_share(y, ys) * (_TALL - 1))]
        place = round(_share(x, xs) * (_WIDE - 2 - len(mark)))
        while place + len(mark) < _WIDE and any(each != " " for each in row[max(0, place - 1) : place + len(mark)]):
            place += 1
        row[place : place + len(mark)] = mark
    labels = {0: figure(math.exp(max(ys)), 3), _TALL - 1: figure(math.exp(min(ys)), 3)}
    width = max(len(up), *map(len, labels.values()))
    lines = [f"{labels.get(number, ''):>{width}} │{''.join(row).rstrip()}" for number, row in enumerate(rows)]
    low, high = figure(min(xs)), figure(max(xs))
    return "\n".join([f"{up:>{width}}", *lines, f"{'':>{width}} └{'─' * _WIDE}",
                      f"{'':>{width}}  {low}{high:>{_WIDE - len(low)}}  {across}"])  # fmt: skip


def _share(value: float, among: Sequence[float]) -> float:
    low, high = min(among), max(among)
    return (value - low) / (high - low) if high > low else 0.0
