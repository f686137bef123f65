"""`mainspring advise`: the next step that a project's use justifies, and the machines that an endpoint needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import figure, show_records
from mainspring.core.errors import NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.advise.folder import FirstPage
    from mainspring.operations.advise.model import Advised
    from mainspring.operations.advise.saving_model import SavingsReport
    from mainspring.operations.advise.size_model import Bounds, SizeChoice, SizeReport
    from mainspring.serving.sizing.speed import Speed

_MARKS = {"in place": "[green]✓[/]", "next": "[yellow]→[/]", "not needed yet": "[dim]·[/]"}
_LEFT_OUT = 3  # lines


@click.group("advise", cls=Group, default="next")
def command() -> None:
    """Advice: the next step of a project, the machines that an endpoint needs, and savings."""


@make("next", reads_only=True)
def next_(call: Call) -> None:
    """Name the next step that the project's use justifies, with the evidence.

    Ten areas are looked at: data, baseline, gates, tracking, serving, tests, monitoring, automation, rollout and cost.
    A step is advised only if the measured use justifies it. In a folder without a project, tables and notebooks are
    looked at instead.
    """
    from mainspring.operations.advise import advise, collect, first_page

    try:
        project = call.project
    except NotFound:
        folder = call.folder or Path.cwd()
        if call.profile is not None or not folder.is_dir():
            raise
        page = first_page(folder)
        call.result(page, lambda console: _show_first(console, page))
        return
    advised = advise(collect(project))
    call.result(advised, lambda console: _show(console, advised))


@make("size")
@click.argument("endpoint")
@click.option("--rate", type=float, help="Requests a second to serve; by default of the busiest recorded window.")
@click.option("--region", default="", metavar="PROVIDER/REGION", help="Look at all machines that are listed there.")
@click.option("--machine", "machines", multiple=True, metavar="PROVIDER/REGION/INSTANCE", help="Repeatable.")
@click.option("--on", "described", multiple=True, type=click.Path(path_type=Path, dir_okay=False),
              help="What `advise machine --json` printed on another machine; repeatable.")  # fmt: skip
@click.option("--speed", type=float, help="Of a listed machine's core, as a multiple of one here, if it was measured.")
@click.option("--spare", type=int, default=1, show_default=True, help="Machines that may be lost.")
@click.option("--again", is_flag=True, help="Repeat the load test although there is one of this version.")
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each load of the test.")
def size_(
    call: Call, *, endpoint: str, rate: float | None, region: str, machines: tuple[str, ...],
    described: tuple[Path, ...], speed: float | None, spare: int, again: bool, seconds: float,
) -> None:  # fmt: skip
    """Say which machines ENDPOINT needs, and their price.

    The endpoint is loaded here first, unless it has been; then other machines are predicted, with an interval. Exit
    code 3 if none of them serves the load in time.
    """
    from mainspring.operations.advise.sizing import size

    report = size(
        call.project, endpoint, rate, machines=machines, region=region, described=described, speed=speed, spare=spare,
        again=again, seconds=seconds, told=lambda text: call.say(f"  {text}", style="dim", markup=False),
    )  # fmt: skip
    call.result(report, lambda console: _show_sizes(console, report))
    raise SystemExit(exits.OK if report.choices else exits.GATE)


@make("cost", reads_only=True)
@click.option("--days", type=int, default=90, show_default=True, help="Days of use that are looked at.")
@click.option("--reads", type=float, default=1.0, show_default=True, help="How often a table is read in a month.")
@click.option("--interrupted", type=float, help="Losses of a spot machine to expect in an hour.")
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), help="Recorded lives of spot machines, a CSV."
)
@click.option("--checkpoint", "checkpoint_s", type=float, default=30.0, show_default=True,
              help="Seconds by which one delays a training.")  # fmt: skip
@click.option("--restart", "restart_s", type=float, default=180.0, show_default=True,
              help="Seconds until a training goes on after a loss.")  # fmt: skip
@click.option("--callers", default="", metavar="PROVIDER/REGION", help="Nearest to the callers.")
@click.option("--trip", "trips", multiple=True, metavar="PROVIDER/REGION=MS", help="A measured round trip; repeatable.")
def cost_(
    call: Call, *, days: int, reads: float, interrupted: float | None, trace: Path | None, checkpoint_s: float,
    restart_s: float, callers: str, trips: tuple[str, ...],
) -> None:  # fmt: skip
    """Say what would cost less, by metered use: idle endpoints, storage, commitments, spot machines, regions.

    Each advice has its evidence and what it assumes. Nothing is changed. Machines are sized by `advise size`.
    """
    from mainspring.operations.advise.saving import parse_trips, savings
    from mainspring.operations.advise.saving_model import Asked

    asked = Asked(
        reads=reads, interrupted=interrupted, trace=trace, checkpoint_s=checkpoint_s, restart_s=restart_s,
        callers=callers, trips=parse_trips(trips),
    )  # fmt: skip
    report = savings(call.project, days=days, asked=asked)
    call.result(report, lambda console: _show_savings(console, report))


@make("machine", reads_only=True)
@click.option("--name", default="", help="How it is called in advice; by default the host's name.")
def machine_(call: Call, *, name: str) -> None:
    """Measure the speed of this machine, for `advise size --on` elsewhere. It needs no project."""
    from mainspring.operations.advise.sizing import describe_machine

    found = describe_machine(name)
    call.result(found, lambda console: _show_speed(console, found))


def _show_savings(console: Console, report: SavingsReport) -> None:
    console.print(f"{report.days} day{'s' if report.days != 1 else ''} with use since {report.since}.", markup=False)
    for each in report.savings:
        saved = "an unknown amount" if each.month is None else f"{each.month:,.2f} {report.currency} a month"
        console.print(f"\n[bold]{each.kind}[/]: [bold]{escape(each.subject)}[/], {saved}", soft_wrap=True)
        lines = [each.evidence, *([f"Worst: {each.worst}"] if each.worst else []), each.do]
        for line in lines:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        if each.command:
            console.print(f"    {each.command}", markup=False, soft_wrap=True)
        console.print(f"  Assumed: {'; '.join(each.assumes)}.", style="dim", markup=False, soft_wrap=True)
    console.print()
    for kind, why in report.none.items():
        console.print(f"[dim]· {kind:<12}[/] {escape(why)}", soft_wrap=True)
    for text in report.warnings:
        console.print(text, style="yellow", markup=False)


def _show_sizes(console: Console, report: SizeReport) -> None:
    console.print(
        f"{figure(report.demand)} requests/s to {report.endpoint}, version {report.version} ({report.of}); deadline "
        f"{report.deadline_ms:g} ms, {report.spare} to spare.",
        markup=False,
    )
    console.print(f"One core here: {report.capacity:,.0f} requests/s ({report.tested}).", style="dim", markup=False)
    if report.choices:
        columns = ("machine", "count", "month", "requests/s of one", "p99 ms", "headroom", "one lost")
        show_records(console, columns, [_row(each) for each in report.choices], right=columns[1:])
    else:
        console.print("No machine serves that load in time.", style="yellow")
    if report.int8 is not None:
        console.print(f"With layers of 8 bits one core here: {_between(report.int8)} requests/s, predicted; "
                      "`mainspring optimize` makes and judges it.", markup=False)  # fmt: skip
    else:
        console.print(f"With layers of 8 bits nothing is predicted: {report.not_int8}.", style="dim", markup=False)
    unknown = {text: [each.machine for each in report.choices if text in each.unknown]
               for text in dict.fromkeys(text for each in report.choices for text in each.unknown)}  # fmt: skip
    for text, of in unknown.items():
        console.print(f"Unknown: {text}, of {', '.join(of)}.", style="dim", markup=False)
    for text in report.left_out[:_LEFT_OUT]:
        console.print(f"Left out: {text}.", style="dim", markup=False)
    if len(report.left_out) > _LEFT_OUT:
        console.print(f"Left out: {len(report.left_out) - _LEFT_OUT} more, see --json.", style="dim")
    for text in report.assumed:
        console.print(f"Assumed: {text}.", style="dim", markup=False)
    for text in report.warnings:
        console.print(text, style="yellow", markup=False)


def _row(choice: SizeChoice) -> tuple[str, ...]:
    month = "" if choice.month is None else f"{choice.month:,.0f} {choice.currency}"
    return (
        choice.machine, f"{choice.count}", month, _between(choice.rate), _between(choice.p99_ms),
        f"{choice.headroom:+.0%}", f"{choice.headroom_lost:+.0%}",
    )  # fmt: skip


def _between(bounds: Bounds) -> str:
    return f"{figure(bounds.value)} ({figure(bounds.low)} to {figure(bounds.high)})"


def _show_speed(console: Console, found: Speed) -> None:
    console.print(f"{found.name}: {found.processor}, {found.cores:g} cores, {found.memory_gib:.1f} GiB", markup=False)
    for kind, rows in (("fp32", 64), ("int8", 64)):
        console.print(f"  {kind} products  {found.gops(kind, rows, 256):,.0f} billion operations/s on a core")
    console.print(f"  other operators {found.moved_gb_s:,.0f} GB/s, {found.node_us:.2f} µs each")
    console.print(f"  Python         {found.scalar:,.1f} million steps/s")
    at_once = ", ".join(f"{cores} cores: {more:.2f}" for cores, more in found.together.items())
    console.print(f"  at once        {at_once}")


def _show(console: Console, advised: Advised) -> None:
    following = advised.next
    if following is None:
        console.print(f"[bold]{escape(advised.project)}[/]: nothing more is justified by its use.")
    else:
        console.print(f"[bold]{escape(advised.project)}[/]: next is [bold]{following.area}[/].\n")
        console.print(f"  {escape(following.evidence)}", soft_wrap=True)
        console.print(f"  [bold]{escape(following.step)}[/] {escape(following.why)}\n", soft_wrap=True)
        for line in following.command.splitlines():
            console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print()
    for each in advised.areas:
        mark = "[bold yellow]→[/]" if each is following else _MARKS[each.state]
        detail = each.evidence if each.state != "next" or each is following else f"{each.evidence} {each.step}"
        if each.state == "not needed yet":
            detail = f"{each.evidence} {each.why}"
        console.print(f"{mark} [bold]{each.area:<12}[/] {escape(detail)}", soft_wrap=True)


def _show_first(console: Console, page: FirstPage) -> None:
    from mainspring.operations.advise.folder import MOST_ROWS

    console.print(f"[bold]{_shown(page.folder)}[/] has no project yet.\n", soft_wrap=True)
    for table in page.tables:
        times = f", time: {', '.join(table.times)}" if table.times else ""
        label = f", to predict: {table.label}" if table.label else ""
        first = "the first " if table.rows == MOST_ROWS else ""
        told = f"{table.path}: {first}{table.rows:,} rows, {len(table.columns)} columns{times}{label}"
        console.print(f"  table     {_shown(told)}", soft_wrap=True)
    for notebook in page.notebooks:
        libraries = f": {', '.join(notebook.libraries)}" if notebook.libraries else ""
        console.print(f"  notebook  {_shown(notebook.path + libraries)}", soft_wrap=True)
    for path in page.unread:
        console.print(f"  [yellow]unread[/]    {_shown(path)}: not a table that can be read", soft_wrap=True)
    console.print()
    for number, step in enumerate(page.steps, 1):
        console.print(f"{number}. {_shown(step)}", soft_wrap=True)
    if page.source:
        console.print(f"\n{page.source}", markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    """Return a text from a file as it is, without what moves a terminal's cursor or colours it."""
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))


for each in (next_, size_, cost_, machine_):
    command.add_command(each)
