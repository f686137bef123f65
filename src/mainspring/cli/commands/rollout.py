"""`mainspring rollout`: a candidate takes a share of an endpoint's requests, and stays or goes on evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.delivery.model import Promotion
    from mainspring.delivery.rollout.model import Reading, RolloutState
    from mainspring.operations.rollout.reports import RolloutReport

_REASON = click.option("--reason", default="", help="Reason, for the audit log.")
_BAR = 31
_WIDEST = 8.0  # ratio at the ends of a bar


@click.group("rollout", cls=Group)
def command() -> None:
    """Canary, blue-green, A/B, bandit and shadow rollouts of a version, ended on evidence."""


@make("plan")
@click.argument("endpoint")
def plan(call: Call, *, endpoint: str) -> None:
    """Show the plan of ENDPOINT's rollouts, and simulate on its recent traffic what it finds, and how soon.

    The plan is the project's `ms.Rollout`, or the default.
    """
    from mainspring.operations.rollout.outlook import planned
    from mainspring.operations.rollout.reports import longest

    found = planned(call.project, endpoint)

    def show(console: Console) -> None:
        _print(console, f"{endpoint}, {longest(found)}")
        _print(console, f"  step           {found.least_requests} requests of the candidate, one arm a {found.assign}")
        for kind, guards in (("guard", found.guards), ("goal", found.goals)):
            for guard in guards:
                tolerated = guard.factor - 1 if guard.kind == "latency" else guard.tolerance
                _print(console, f"  {kind:<14} {guard.name}, tolerance {tolerated:.4g}")
        _print(console, f"  false alarms   at most {100 * found.alpha:g}%; on success: {found.on_success}")
        if not found.foreseen:
            _print(console, "  simulated      nothing: there is no traffic yet, or no step leaves the champion a share")
            return
        _print(console, f"  simulated      {found.requests_an_hour:,.0f} requests an hour, as in the newest of the log")
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("guard", "if", "rolled back", "shown fine", "half by", "9 of 10 by"):
            table.add_column(name, justify="left" if name in ("guard", "if") else "right", no_wrap=name != "if")
        for each in found.foreseen:
            times = _hours(each.median_hours), _hours(each.late_hours)
            shares = f"{100 * each.rolled_back:.0f}%", f"{100 * each.cleared:.0f}%"
            smallest = " (the least that 4 of 5 find)" if each.least else ""
            table.add_row(each.guard, f"{each.candidate}{smallest}", *shares, *times)
        console.print(table)

    call.result(found, show)


def _hours(hours: float | None) -> str:
    """Return a time of a simulated rollout in words, rounded to two digits."""
    if hours is None:
        return "the plan's end"
    unit, seconds = next((each for each in (("h", 3_600), ("min", 60)) if hours * 3_600 >= each[1]), ("s", 1))
    return f"{float(f'{hours * 3_600 / seconds:.2g}'):g} {unit}"


@make("start")
@click.argument("endpoint")
@click.option("--candidate", metavar="VERSION", help="Version to roll out; by default the newest.")
@_REASON
def start(call: Call, *, endpoint: str, candidate: str | None, reason: str) -> int:
    """Start a rollout beside the champion, if the candidate passes the model's gates; else exit with 3."""
    from mainspring.operations.rollout.interventions import start

    return _ended(call, start(call.project, endpoint, candidate, reason=reason))


@make("status")
@click.argument("endpoint")
def status(call: Call, *, endpoint: str) -> None:
    """Show the newest rollout of ENDPOINT: arms, every guard with its interval, decisions, and time left."""
    from mainspring.core.errors import NotFound

    call.project.definitions.endpoint(endpoint)
    found = call.project.rollouts.find(endpoints=[endpoint], limit=1)
    if not found:
        raise NotFound(f"Endpoint {endpoint!r} has had no rollout.", fix=f"run `mainspring rollout start {endpoint}`.")
    _report(call, found[0])


@make("stop")
@click.argument("endpoint")
@_REASON
def stop(call: Call, *, endpoint: str, reason: str) -> None:
    """End the live rollout at once: the champion has every request again. No worker is needed."""
    from mainspring.operations.rollout.interventions import end

    _report(call, end(call.project, endpoint, "stop", reason=reason))


@make("promote")
@click.argument("endpoint")
@_REASON
def promote(call: Call, *, endpoint: str, reason: str) -> int:
    """Let the candidate be champion now, if it passes the model's gates; else exit with 3."""
    from mainspring.operations.rollout.interventions import promote

    return _ended(call, promote(call.project, endpoint, reason=reason))


@make("rollback")
@click.argument("endpoint")
@_REASON
def rollback(call: Call, *, endpoint: str, reason: str) -> None:
    """Take the candidate back: end the live rollout, or undo the promotion by the last one."""
    from mainspring.operations.rollout.interventions import roll_back

    _report(call, roll_back(call.project, endpoint, reason=reason))


@make("list")
@click.argument("endpoint", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_(call: Call, *, endpoint: str | None, limit: int) -> None:
    """List rollouts, newest first."""
    from mainspring.operations.rollout.reports import listed

    found = listed(call.project, endpoint, limit)

    def show(console: Console) -> None:
        from rich.table import Table

        if not found:
            console.print("No rollouts yet. Next: mainspring rollout start ENDPOINT")
            return
        table = Table(box=None, header_style="bold")
        for column in ("endpoint", "candidate", "champion", "kind", "status", "began", "why"):
            table.add_column(column, no_wrap=column not in ("why",))
        for each in found:
            table.add_row(
                each.endpoint, each.candidate, each.champion, each.kind, each.status, each.created_at[:19], each.why
            )
        console.print(table)

    call.result(found, show)


def _ended(call: Call, made: RolloutState | Promotion) -> int:
    from mainspring.delivery.model import Promotion

    if not isinstance(made, Promotion):
        _report(call, made)
        return exits.OK
    refused = made

    def show(console: Console) -> None:
        for result in refused.results:
            console.print(f"  {'[green]✓[/]' if result.passed else '[red]✗[/]'} {result}")
        console.print(f"[bold red]{refused.model} version {refused.version} did not pass its gates.[/]")

    call.result(refused, show)
    return exits.GATE


def _report(call: Call, state: RolloutState) -> None:
    from mainspring.operations.rollout.reports import report

    found = report(call.project, state)
    call.result(found, lambda console: _show(console, found))


def _show(console: Console, found: RolloutReport) -> None:
    _print(console, f"{found.endpoint}: {found.status}{f': {found.why}' if found.why else ''}")
    shares = (1 - found.share, found.champion, found.champion_requests), (found.share, found.candidate, found.requests)
    for name, (share, version, requests) in zip(("champion", "candidate"), shares, strict=True):
        filled = "█" * round(20 * share)
        _print(console, f"  {name:<10} version {version:<4} {100 * share:5.1f}% {filled:<20} {requests} requests")
    if found.ended_at is None:
        step = f"step {found.step} of {len(found.steps)}, held for {found.step_left} more"
        _print(console, f"  {found.kind:<10} {step}; ends within {found.left}")
    if found.unchosen:
        _print(console, f"  {'no choice':<10} of an arm had {found.unchosen} requests, which are not compared")
    if found.dropped or found.skipped:
        _print(console, f"  {'not scored':<10} {found.dropped} requests too many, {found.skipped} not whole in the log")
    for each in found.gateways:
        serves = f"version {', '.join(each.versions)}" if each.versions else "nothing"
        route = "" if each.revision is None else f" by revision {each.revision} of the routes"
        _print(console, f"  {each.process:<10} serves {serves}{route}{f'. {each.trouble}' if each.trouble else ''}")
    ratio = () if found.sample_ratio is None else (found.sample_ratio,)
    for reading in (*found.readings, *found.goals, *ratio):
        _print(console, f"  {reading.guard:<22} {bar(reading)} {_numbers(reading)}")
    for line in found.decisions:
        _print(console, f"  {line}")
    if found.note:
        _print(console, found.note)


def bar(reading: Reading) -> str:
    """Return the interval of a reading as text: `─` the interval, `●` the estimate, `│` what is tolerated."""
    if reading.estimate is None:
        return "·" * _BAR
    known = [abs(each) for each in (reading.low, reading.high, reading.limit) if each is not None]
    widest = math.log(_WIDEST) if reading.unit == "ratio" else max([*known, 1e-9])

    def place(value: float) -> int:
        part = (math.log(max(value, 1e-9)) if reading.unit == "ratio" else value) / widest
        return round((_BAR - 1) * (1 + min(max(part, -1.0), 1.0)) / 2)

    low = 0 if reading.low is None else place(reading.low)
    high = _BAR - 1 if reading.high is None else place(reading.high)
    line = ["─" if low <= each <= high else "·" for each in range(_BAR)]
    line[place(reading.limit)] = "│"
    line[place(reading.estimate)] = "●"
    return "".join(line)


def _numbers(reading: Reading) -> str:
    state = "BREACH" if reading.breach else "fine" if reading.safe else "open"
    if reading.estimate is None:
        return f"{state}: {reading.note}"
    bounds = " to ".join("?" if each is None else f"{each:.3g}" for each in (reading.low, reading.high))
    times = "x" if reading.unit == "ratio" else ""
    note = f"; {reading.note}" if reading.note else ""
    return f"{reading.estimate:.3g}{times} ({bounds}), tolerated {reading.limit:.3g}{times}: {state}{note}"


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


for _command in (plan, start, status, stop, promote, rollback, list_):
    command.add_command(_command)
