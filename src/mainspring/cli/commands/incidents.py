"""`mainspring incidents`: list, show, own, silence, close, end a shed, and say what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.ids import NEWEST, whole_id
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.monitoring.incidents.model import Incident
    from mainspring.operations.incidents import ActionReport, IncidentReport

_REASON = click.option("--reason", default="", help="Reason, for the incident's history and the audit log.")
_VERDICTS = ("real", "false-alarm", "expected")


@click.group("incidents", cls=Group)
def command() -> None:
    """Incidents: what is wrong with an endpoint, grouped by cause."""


@make("list", reads_only=True)
@click.argument("endpoint", required=False)
@click.option("--all", "ended", is_flag=True, help="Closed incidents too.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_(call: Call, *, endpoint: str | None, ended: bool, limit: int) -> None:
    """List open incidents, the most important first: pages, then the largest expected effect on the score."""
    from mainspring.operations.incidents import listed

    found = listed(call.project, endpoint, ended=ended, limit=limit)

    def show(console: Console) -> None:

        if not found:
            console.print("No incidents." if ended else "No open incidents.")
            return
        rows = [
            (
                each.id, each.level, each.status, each.cause, ", ".join(each.endpoints), each.started[:16],
                f"{each.severity:.1f}", "" if each.rank is None else f"{each.rank:.3f}", each.owner,
            )
            for each in found
        ]  # fmt: skip
        columns = ("id", "level", "status", "cause", "endpoints", "since", "severity", "effect", "owner")
        show_records(console, columns, rows, right=("severity", "effect"))
        failed = sum(message.state == "failed" for each in found for message in each.messages)
        if failed:
            _print(console, f"{failed} messages could not be delivered: `mainspring incidents show ID` tells why.")

    call.result(found, show)


def _whole(call: Call, given: str) -> str:
    found = (each.id for each in call.project.incidents.find(limit=NEWEST))
    return whole_id("incident", given, found)


@make("show", reads_only=True)
@click.argument("incident_id", metavar="ID")
def show(call: Call, *, incident_id: str) -> None:
    """Show an incident: its symptoms with their values, its history, messages and actions."""
    from mainspring.operations.incidents import find, report

    _report(call, report(call.project, find(call.project, _whole(call, incident_id))))


@make("own")
@click.argument("incident_id", metavar="ID")
@click.option("--owner", help="The person who takes care of it; by default the user of this process.")
def own(call: Call, *, incident_id: str, owner: str | None) -> None:
    """Set the person who takes care of an incident."""
    from mainspring.operations.incidents import own

    _done(call, own(call.project, _whole(call, incident_id), owner))


@make("silence")
@click.argument("incident_id", metavar="ID")
@click.option("--for", "until", required=True, help="Duration, such as 8h, or the instant of its end; at most 30 days.")
@_REASON
def silence(call: Call, *, incident_id: str, until: str, reason: str) -> None:
    """Send no messages about an incident, and take no action, for a time."""
    from mainspring.operations.incidents import silence

    _done(call, silence(call.project, _whole(call, incident_id), until, reason=reason))


@make("close")
@click.argument("incident_id", metavar="ID")
@_REASON
def close(call: Call, *, incident_id: str, reason: str) -> None:
    """Close an incident now; it reopens if its cause shows again within the cool-down."""
    from mainspring.operations.incidents import close

    _done(call, close(call.project, _whole(call, incident_id), reason=reason))


@make("verdict")
@click.argument("incident_id", metavar="ID")
@click.argument("verdict", type=click.Choice(_VERDICTS))
@_REASON
def verdict(call: Call, *, incident_id: str, verdict: str, reason: str) -> None:
    """Say what an incident was. A `false-alarm` and an `expected` change are closed; alarms learn from all three."""
    from mainspring.operations.incidents import judge

    _done(call, judge(call.project, _whole(call, incident_id), verdict.replace("-", " "), reason=reason))


@make("end-shed")
@click.argument("incident_id", metavar="ID")
@_REASON
def end_shed(call: Call, *, incident_id: str, reason: str) -> None:
    """End the shed, the restriction of a caller, or what a budget holds back: all goes on as before the incident."""
    from mainspring.operations.incidents import end_shed

    _done(call, end_shed(call.project, _whole(call, incident_id), reason=reason))


for _command in (list_, show, own, silence, close, verdict, end_shed):
    command.add_command(_command)


def _done(call: Call, incident: Incident) -> None:
    from mainspring.operations.incidents import report

    _report(call, report(call.project, incident))


def _report(call: Call, found: IncidentReport) -> None:
    def told(console: Console) -> None:
        _print(console, f"{found.cause} · {found.level}, {found.status} · {', '.join(found.endpoints)}")
        facts = {
            "id": found.id,
            "since": found.started,
            "opened": found.opened_at + (f", reopened {found.reopened} times" if found.reopened else ""),
            "closed": found.closed_at,
            "owner": found.owner,
            "silenced": found.silenced_until and f"until {found.silenced_until}",
            "verdict": found.verdict,
            "effect": None if found.rank is None else f"moves the score by {found.rank:.4f} on average",
        }
        for name, value in facts.items():
            if value:
                _print(console, f"  {name:<9} {value}")
        _print(console, "symptoms")
        for each in found.symptoms:
            where = " ".join(filter(None, (each.endpoint, each.column, each.segment, each.version)))
            numbers = "" if each.value is None else f" {each.value:.4g}"
            numbers += "" if each.expected is None else f", expected {each.expected:.4g}"
            _print(console, f"  {each.severity:>6.1f}  {each.channel} · {where} · {each.statistic}{numbers}")
            if each.detail:
                _print(console, f"          {each.detail}")
        if found.more:
            _print(console, f"          and {found.more} more")
        for title, lines in (
            ("history", [f"{each.at}  {each.by}: {each.text}" for each in found.notes]),
            ("actions", [_taken(each) for each in found.actions]),
            ("messages", [_sent(each.target, each.event, each.state, each.error) for each in found.messages]),
        ):
            if lines:
                _print(console, title)
            for line in lines:
                _print(console, f"  {line}")

    call.result(found, told)


def _taken(action: ActionReport) -> str:
    return f"{action.at}  {action.action}{' (on)' if action.until else ''}: {action.state} {action.detail}"


def _sent(target: str, event: str, state: str, error: str) -> str:
    return f"{target}: {event}, {state}{f': {error}' if error else ''}"


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
