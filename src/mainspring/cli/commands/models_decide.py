"""`mainspring models approve`, `withdraw`, `waive`, `waivers`, `delete`, `restore`, `gc`: decisions about versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.registry.model import Waiver

_REASON = click.option("--reason", default="", help="Reason, for the history.")


_KEY_FILE = click.option(
    "--key-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A file with an API key of the scope manage, which identifies the actor. By default the user of this machine.",
)


@make("approve")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@_KEY_FILE
@_REASON
def approve(call: Call, *, reference: str, key_file: Path | None, reason: str) -> None:
    """Approve a version for promotion, as somebody other than its author."""
    from mainspring.operations.models import curating

    done = curating.approve(call.project, reference, key=_key(key_file), reason=reason)
    call.result(
        dated(done, "at"),
        lambda console: console.print(
            f"{done.approver} approved {done.model}:{done.version}.", markup=False, highlight=False
        ),
    )


@make("withdraw")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--approver", help="The approver, as `show` prints it. By default the actor who withdraws.")
@_KEY_FILE
@_REASON
def withdraw(call: Call, *, reference: str, approver: str | None, key_file: Path | None, reason: str) -> None:
    """Withdraw an approval: promotions no longer count it. A live version stays live until a rollback."""
    from mainspring.operations.models import curating

    done = curating.withdraw(call.project, reference, approver=approver, key=_key(key_file), reason=reason)
    approval = done.approval
    call.result(
        dated(done, "at", "approval.at"),
        lambda console: console.print(
            f"The approval of {approval.model}:{approval.version} by {approval.approver} is withdrawn.",
            markup=False,
            highlight=False,
        ),
    )


@make("waive")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.argument("gate")
@click.option("--reason", default="", help="Reason; required unless the waiver is ended.")
@click.option("--until", default="", help="End of the waiver: an instant, or a duration such as 7d; at most 90 days.")
@click.option("--end", is_flag=True, help="End the waiver of this gate now.")
@_KEY_FILE
def waive(call: Call, *, reference: str, gate: str, reason: str, until: str, end: bool, key_file: Path | None) -> None:
    """Let a version go live although it fails GATE: the gate's text as `promote` prints it, or a part of it.

    The waiver is signed, audited, and ends by itself. Approvals cannot be waived. If the project asks for approvals,
    the author of a version cannot waive its gates.
    """
    from mainspring.core.time import format_instant
    from mainspring.operations.models import waiving

    key = _key(key_file)
    if end:
        done = waiving.end_waiver(call.project, reference, gate, key=key)
        told = f"The waiver of {done.gate!r} for {done.model}:{done.version} is ended."
    else:
        done = waiving.waive(call.project, reference, gate, reason=reason, until=until, key=key)
        until = format_instant(done.until)
        told = f"{done.actor} waived {done.gate!r} for {done.model}:{done.version} until {until}."
    call.result(_waiver(done), lambda console: console.print(told, markup=False, highlight=False))


@make("waivers")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
def waivers(call: Call, *, reference: str) -> None:
    """List the waivers of a version, or of all versions of NAME, newest first: active, expired, ended or invalid."""
    from mainspring.core.time import format_instant
    from mainspring.operations.models import waiving

    found = waiving.listed(call.project, reference)

    def told(console: Console) -> None:
        for each, state in found:
            line = f"{each.model}:{each.version}  {state:<8} {each.gate}, by {each.actor} until "
            console.print(f"{line}{format_instant(each.until)}: {each.reason}", markup=False, highlight=False)
        if not found:
            console.print("No gate is waived.")

    call.result([{**_waiver(each), "state": state} for each, state in found], told)


def _waiver(waiver: Waiver) -> dict[str, Any]:
    fields = dated(waiver, "at", "until", "ended_at")
    return {name: value for name, value in fields.items() if name != "signature"}


def _key(file: Path | None) -> str | None:
    return None if file is None else file.read_text(encoding="utf-8", errors="replace").strip()


@make("delete")
@click.argument("reference", metavar="NAME:VERSION")
@_REASON
def delete(call: Call, *, reference: str, reason: str) -> None:
    """Mark a version for deletion. `mainspring models gc` removes it after a grace period.

    A version that an alias or an endpoint uses cannot be deleted.
    """
    from mainspring.operations.models import curating

    done = curating.delete(call.project, reference, reason=reason)
    call.result(
        dated(done, "at"),
        lambda console: console.print(
            f"{done.model}:{done.version} is marked for deletion. Undo with `mainspring models restore` before "
            "the grace period ends.",
            markup=False,
            highlight=False,
        ),
    )


@make("restore")
@click.argument("reference", metavar="NAME:VERSION")
def restore(call: Call, *, reference: str) -> None:
    """Unmark a version that is marked for deletion."""
    from mainspring.operations.models import curating

    done = curating.restore(call.project, reference)
    call.result(
        dated(done, "created_at"),
        lambda console: console.print(f"{done.model}:{done.version} stays.", markup=False, highlight=False),
    )


@make("gc")
@click.option("--grace", default="7d", show_default=True, help="Minimum age of a mark or an unreferenced bundle.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, without removing it.")
def gc(call: Call, *, grace: str, dry_run: bool) -> None:
    """Remove marked versions and unreferenced bundles.

    A bundle stays while a version, alias, tag, graph, endpoint, route or logged prediction refers to it.
    """
    from mainspring.core.time import parse_duration
    from mainspring.operations.models import curating

    done = curating.garbage(call.project, grace_us=parse_duration(grace), dry_run=dry_run)

    def told(console: Console) -> None:
        word = "would be removed" if dry_run else "removed"
        for mark in done.versions:
            console.print(f"  {mark.model}:{mark.version} {word}", markup=False, highlight=False)
        for digest in done.bundles:
            console.print(f"  bundle {digest[:12]} {word}", markup=False, highlight=False)
        for mark, reason in done.kept:
            console.print(f"  {mark.model}:{mark.version} stays: {reason}", markup=False, highlight=False)
        if done.unfinished:
            console.print(f"  {done.unfinished} unfinished bundles of killed processes removed", highlight=False)
        console.print(f"{len(done.versions)} versions and {len(done.bundles)} bundles {word}.")

    document = {
        "dry_run": dry_run,
        "versions": [dated(mark, "at") for mark in done.versions],
        "bundles": done.bundles,
        "kept": [{**dated(mark, "at"), "because": reason} for mark, reason in done.kept],
        "unfinished": done.unfinished,
    }
    call.result(document, told)


COMMANDS = (approve, withdraw, waive, waivers, delete, restore, gc)
