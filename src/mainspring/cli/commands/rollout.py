"""`mainspring rollout`: a candidate takes a share of an endpoint's requests, and stays or goes on evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.delivery.model import Promotion
    from mainspring.delivery.rollout.model import Reading, RolloutState
    from mainspring.operations.rollout.outlook import PlanReport
    from mainspring.operations.rollout.reports import RolloutReport

_REASON = click.option("--reason", default="", help="Reason, for the audit log.")
_BAR = 21
_FORESEEN = ("rolled back", "found safe", "half by", "9 of 10 by")
_MOST = 0.8  # share of good candidates that a useful plan finds to be safe
_HUGE = 100
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
    from mainspring.delivery.rollout.plan_in_words import planned as in_words
    from mainspring.operations.rollout.outlook import planned

    found = planned(call.project, endpoint)

    def show(console: Console) -> None:
        _print(console, endpoint)
        for sentence in in_words(found):
            _print(console, sentence, indent=2)
        console.print()
        if found.foreseen:
            show_foreseen(console, found)
        elif not found.requests_an_hour:
            _print(console, "Not simulated: the endpoint's log has no requests yet.")
        else:
            _print(console, "Not simulated: no request has a choice between the two versions.")
        if found.advice:
            _print(console, found.advice)

    call.result(found, show)


def show_foreseen(console: Console, found: PlanReport) -> None:
    """Print what simulated rollouts of a plan find."""
    from rich.table import Table

    _print(console, f"Simulated with {found.requests_an_hour:,.0f} requests an hour, as its log has them:")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (("a candidate that", "left"), *((each, "right") for each in _FORESEEN)):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    guards: list[str] = []
    least = False
    for each in found.foreseen:
        if each.guard not in guards:
            guards.append(each.guard)
            table.add_row(f"[dim]by the guard on {each.guard}[/]")
        least = least or each.least
        table.add_row(
            f"  {each.candidate}{' *' if each.least else ''}",
            f"{100 * each.rolled_back:.0f}%",
            f"{100 * each.cleared:.0f}%",
            _hours(each.median_hours),
            _hours(each.late_hours),
        )
    console.print(table)
    if least:
        _print(console, "* the least that 4 of 5 rollouts find")
    unseen = [each.name for each in (*found.guards, *found.goals) if each.name not in guards]
    if unseen:
        _print(console, f"Not simulated: {', '.join(unseen)}.")
    same = [next(each for each in found.foreseen if each.guard == guard) for guard in guards]
    slowest = min(same, key=lambda each: each.cleared)
    if slowest.cleared < _MOST:
        _print(
            console,
            f"Only {100 * slowest.cleared:.0f}% of candidates that are no worse are found safe by the guard on "
            f"{slowest.guard} before the plan ends; the others end undecided. Let longest be longer, the steps larger, "
            "or the tolerance higher.",
        )


def _hours(hours: float | None) -> str:
    """Return a time of a simulated rollout in words, rounded to two digits."""
    if hours is None:
        return "too late"
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

    call.project.definitions.served(endpoint)
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
@click.option("--emergency", is_flag=True, help="Return to a version of your own that is not approved; give a reason.")
def rollback(call: Call, *, endpoint: str, reason: str, emergency: bool) -> None:
    """Take the candidate back: end the live rollout, or undo the promotion by the last one."""
    from mainspring.operations.rollout.interventions import roll_back

    _report(call, roll_back(call.project, endpoint, reason=reason, emergency=emergency))


@make("list")
@click.argument("endpoint", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_(call: Call, *, endpoint: str | None, limit: int) -> None:
    """List rollouts, newest first."""
    from mainspring.operations.rollout.reports import listed

    if endpoint is not None:
        call.project.definitions.served(endpoint)
    found = listed(call.project, endpoint, limit)

    def show(console: Console) -> None:

        if not found:
            console.print("No rollouts yet. Next: mainspring rollout start ENDPOINT")
            return
        rows = [
            (
                each.endpoint, each.candidate, each.champion, each.kind, each.status, each.created_at[:19],
                each.why,
            )
            for each in found
        ]  # fmt: skip
        columns = ("endpoint", "candidate", "champion", "kind", "status", "began", "why")
        show_records(console, columns, rows, folded=("why",))

    call.result(found, show)


def _ended(call: Call, made: RolloutState | Promotion) -> int:
    from mainspring.delivery.model import Promotion

    if not isinstance(made, Promotion):
        _report(call, made)
        return exits.OK
    refused = made

    def show(console: Console) -> None:
        from mainspring.cli.commands.promote import show_gates

        show_gates(console, refused.results)
        console.print(
            f"[bold red]{refused.model} version {refused.version} did not pass its gates[/]: nothing changed."
        )

    call.result(refused, show)
    return exits.GATE


def _report(call: Call, state: RolloutState) -> None:
    from mainspring.operations.rollout.reports import report

    found = report(call.project, state)
    call.result(found, lambda console: show_rollout(console, found))


def show_rollout(console: Console, found: RolloutReport) -> None:
    """Print a rollout: its arms, what it waits for, every guard with its interval, and the decisions."""
    _print(console, f"{found.endpoint}: {found.status}{f': {found.why}' if found.why else ''}")
    _show_arms(console, found)
    ratio = () if found.sample_ratio is None or found.kind == "shadow" else (found.sample_ratio,)
    readings = () if found.status == "pending" else (*found.readings, *found.goals, *ratio)
    width = max((len(reading.guard) for reading in readings), default=0)
    for reading in readings:
        state, numbers = _numbers(reading)
        _print(console, f"  {reading.guard:<{width}} {bar(reading)} {state:<6} {numbers}", indent=width + _BAR + 11)
        if reading.estimate is not None and reading.note:
            _print(console, f"{'':{width + 3}}{reading.note}", indent=width + 3, style="dim")
    for line in found.decisions:
        at, _, told = line.partition(" ")
        _print(console, f"  {at[:19]}Z {told}", indent=23)
    if found.note:
        _print(console, found.note)


def _show_arms(console: Console, found: RolloutReport) -> None:
    """Print the arms of a rollout, how far it is, and the requests and processes that have no part in it."""
    shares = (1 - found.share, found.champion, found.champion_requests), (found.share, found.candidate, found.requests)
    for name, (share, version, requests) in zip(("champion", "candidate"), shares, strict=True):
        compared = f"{requests:,} requests{' compared' if found.ended_at else ''}"
        if found.kind == "shadow":  # of the champion only what the candidate answers too is counted
            compared = "" if name == "champion" else f"{requests:,} pairs of answers"
        filled = "█" * round(20 * share)
        _print(console, f"  {name:<10} version {version:<4} {100 * share:5.1f}% {filled:<20} {compared}")
    rows = [("shed", found.shed)] if found.shed else []
    if found.ended_at is None:
        waits = f", waits for {' and '.join(found.waits_for)}" if found.waits_for else ""
        rows.append((found.kind, f"step {found.step} of {len(found.steps)}{waits}; ends in {found.left} at the latest"))
    if found.unchosen:
        rows.append(("no choice", f"of an arm had {found.unchosen:,} requests, which are not compared"))
    if found.dropped or found.skipped:
        rows.append(("not scored", f"{found.dropped:,} requests too many, {found.skipped:,} not whole in the log"))
    for each in found.gateways:
        serves = f"version {', '.join(each.versions)}" if each.versions else "nothing"
        route = "" if each.revision is None else f" by revision {each.revision} of the routes"
        rows.append((each.process, f"serves {serves}{route}{f'. {each.trouble}' if each.trouble else ''}"))
    for name, told in rows:
        _print(console, f"  {name:<10} {told}", indent=13)


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


def _numbers(reading: Reading) -> tuple[str, str]:
    """Return the state of a reading, and its numbers in words."""
    state = "BREACH" if reading.breach else "fine" if reading.safe else "open"
    if reading.estimate is None:
        return state, reading.note or "nothing observed yet"
    times = "x" if reading.unit == "ratio" else ""
    low = "" if reading.low is None else f"{reading.low:.3g}"
    high = "" if reading.high is None else f"{reading.high:.3g}" if reading.high < _HUGE else f"over {_HUGE}"
    bounds = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else "any"
    limit = "expected" if reading.guard == "sample ratio" else "limit"
    return state, f"{reading.estimate:.3g}{times} ({bounds}), {limit} {reading.limit:.3g}{times}"


def _print(console: Console, text: str, *, indent: int = 0, style: str | None = None) -> None:
    """Print a line, and its continuation lines `indent` further right than its first character, or than the margin."""
    import textwrap

    first = "" if text.startswith(" ") else " " * indent
    lines = textwrap.wrap(
        text,
        max(40, console.width),
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines or [""]:
        console.print(line, markup=False, highlight=False, style=style, soft_wrap=True)


for _command in (plan, start, status, stop, promote, rollback, list_):
    command.add_command(_command)
