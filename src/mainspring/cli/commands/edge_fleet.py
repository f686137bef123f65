"""`mainspring edge publish|keys|rotate|sign|register|rollout|devices|status` and more: a fleet of devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.deploy.edge.repository import RoleKey
    from mainspring.deploy.fleet.model import Rollout
    from mainspring.operations.edge.fleet import DeviceReport, FleetReport

_CONDITIONS = ("healthy", "failing", "behind", "trial", "updating", "off", "never seen")


@make("publish")
@click.argument("folder", metavar="PACKAGE", type=click.Path(file_okay=False, path_type=Path))
def publish(call: Call, *, folder: Path) -> None:
    """Publish a package: sign it into the repository from which devices update."""
    from mainspring.core.time import format_instant
    from mainspring.operations.edge.publishing import publish

    done = publish(call.project, folder)
    release = done.release
    expires = {role: format_instant(at) for role, at in done.expires.items()}
    document = {
        "name": release.name,
        "version": release.version,
        "bytes": release.size_bytes,
        "published_at": format_instant(release.published_at),
        "repository": done.repository,
        "expires": expires,
    }

    def show(console: Console) -> None:
        _line(console, f"{release.name} {release.version} is published: {release.size_bytes:,} bytes.")
        _line(console, f"Serve {done.repository} over HTTPS. Its timestamp expires {expires['timestamp']}.")

    call.result(document, show)


@make("withdraw")
@click.argument("name", metavar="PACKAGE")
@click.argument("version", type=int)
def withdraw(call: Call, *, name: str, version: int) -> None:
    """Remove a version from the repository: no device installs it any more."""
    from mainspring.operations.edge.publishing import withdraw

    release = withdraw(call.project, name, version)
    text = f"{name} {version} is withdrawn; devices that run it keep it."
    call.result({"name": release.name, "version": release.version}, lambda console: _line(console, text))


@make("keys", reads_only=True)
def keys(call: Call) -> None:
    """List the keys of the repository's roles, and when what they sign expires."""
    found = call.project.packages.role_keys()

    def show(console: Console) -> None:
        rows = [
            (each.role, each.id[:12], f"{each.file}{'' if each.present else ' (not here)'}", _instant(each.expires))
            for each in found
        ]
        show_records(console, ("role", "key", "file", "expires"), rows, folded=("file",))

    call.result([_key(each) for each in found], show)


@make("rotate")
@click.argument("role", type=click.Choice(("root", "targets", "snapshot", "timestamp")))
def rotate(call: Call, *, role: str) -> None:
    """Replace the key of a role by a new one. The root's key has to be there."""
    from mainspring.operations.edge.publishing import rotate

    made = rotate(call.project, role)
    text = f"The role {role} has the new key {made.id[:12]}… in {made.file}. The old one is beside it: destroy it."
    call.result(_key(made), lambda console: _line(console, text))


@make("sign")
def sign(call: Call) -> None:
    """Sign the repository's metadata again, so that it does not expire."""
    from mainspring.core.time import format_instant
    from mainspring.operations.edge.publishing import sign

    expires = {role: format_instant(at) for role, at in sign(call.project).items()}

    def show(console: Console) -> None:
        for role, at in expires.items():
            _line(console, f"{role} expires {at}")

    call.result(expires, show)


def _key(each: RoleKey) -> dict[str, object]:
    return {
        "role": each.role,
        "key": each.id,
        "file": str(each.file),
        "present": each.present,
        "expires": _instant(each.expires),
    }


@make("register")
@click.argument("device")
@click.option("--package", required=True, help="Name of the package that the device runs.")
@click.option("--key", required=True, help="The device's public key, as `mainspring-edge key` prints it.")
@click.option("--repository", required=True, help="Address from which it updates: https://host/path.")
@click.option("--broker", required=True, help="Address of the broker: mqtts://host:8883, without a password.")
@click.option("--control", default="", help="Address of the console, to which it uploads; by default it does not.")
@click.option("--to", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The setup's file.")
def register(
    call: Call, *, device: str, package: str, key: str, repository: str, broker: str, control: str, path: Path
) -> None:
    """Register a device by its key, and write the setup that it is given once."""
    from mainspring.operations.edge.fleet import register
    from mainspring.operations.edge.publishing import setup_of, write_setup

    setup = setup_of(call.project, device, package, repository=repository, broker=broker, control=control)
    made = register(call.project, device, package, key)
    write_setup(path, setup)
    document = {"device": made.id, "package": made.package, "key": made.key, "setup": str(path)}
    text = f"{made.id} is registered. Copy {path} to it, and start it: mainspring-edge run FOLDER --setup {path.name}"
    call.result(document, lambda console: _line(console, text))


@make("remove")
@click.argument("device")
def remove(call: Call, *, device: str) -> None:
    """Remove a device: its reports and uploads are refused from now on."""
    from mainspring.operations.edge.fleet import remove

    remove(call.project, device)
    call.result({"device": device}, lambda console: _line(console, f"{device} is removed."))


@make("rollout")
@click.argument("package")
@click.argument("version", type=int, required=False)
@click.option("--rings", default="0.01,0.1,1", show_default=True, help="Growing shares of the fleet.")
@click.option("--soak", default="10m", show_default=True, help="The shortest time in a ring.")
@click.option("--healthy", default=0.95, show_default=True, help="The smallest share of devices that keep the version.")
@click.option("--tried", default=0.8, show_default=True, help="The smallest share of devices that have tried it.")
@click.option("--errors", default=0.02, show_default=True, help="The largest share of failed rows.")
@click.option("--latency", help="The largest latency (p99, median of the devices), such as 50ms.")
@click.option("--stop", "stopping", is_flag=True, help="Stop the running rollout: every device goes back.")
@click.option("--reason", default="", help="Reason of a stop, for its history and the audit log.")
def rollout(
    call: Call,
    *,
    package: str,
    version: int | None,
    rings: str,
    soak: str,
    healthy: float,
    tried: float,
    errors: float,
    latency: str | None,
    stopping: bool,
    reason: str,
) -> None:
    """Roll a published version out by rings; gates on the devices' health stop it and take it back."""
    from mainspring.core.errors import Invalid
    from mainspring.core.time import parse_duration
    from mainspring.deploy.fleet.model import Gates
    from mainspring.operations.edge.fleet import start, stop

    if stopping == (version is not None):
        raise Invalid("Give a version to roll out, or --stop.", fix=f"`mainspring edge rollout {package} VERSION`.")
    if version is None:
        made = stop(call.project, package, reason)
    else:
        try:
            shares = [float(each) for each in rings.split(",")]
        except ValueError:
            raise Invalid(f"The rings are {rings!r}.", fix="write shares: 0.01,0.1,1.") from None
        gates = Gates(
            least_healthy=healthy,
            least_tried=tried,
            most_error_share=errors,
            most_p99_us=None if latency is None else parse_duration(latency),
            soak_us=parse_duration(soak),
        )
        made = start(call.project, package, version, shares, gates)
    call.result(_document(made), lambda console: _show_rollout(console, made))


@make("devices", reads_only=True)
@click.option("--condition", type=click.Choice(_CONDITIONS))
@click.option("--package")
def devices(call: Call, *, condition: str | None, package: str | None) -> None:
    """List devices: condition, version, last seen."""
    from mainspring.operations.edge.fleet import devices

    found = devices(call.project, condition=condition, package=package)

    def show(console: Console) -> None:
        if not found:
            _line(console, "No devices.")
            return
        rows = [
            (
                each.id, each.package, each.condition, _text(each.version), _text(each.wanted), _instant(each.seen_at),
                str(each.rows), str(each.errors), str(each.queued), each.problem[:80],
            )
            for each in found
        ]  # fmt: skip
        columns = ("id", "package", "condition", "version", "is to run", "seen", "rows", "errors", "waiting", "problem")
        show_records(console, columns, rows, right=("rows", "errors", "waiting"), folded=("problem",))

    call.result([_shown(each) for each in found], show)


@make("device", reads_only=True)
@click.argument("device_id", metavar="DEVICE")
def device(call: Call, *, device_id: str) -> None:
    """Show one device."""
    from mainspring.operations.edge.fleet import device

    found = device(call.project, device_id)

    def show(console: Console) -> None:
        for name, value in _shown(found).items():
            if name not in ("profile", "sketch"):
                _line(console, f"{name}: {value}")
        drifted = [] if found.sketch is None else [each for each in found.sketch.columns if each.drifted]
        for each in drifted:
            _line(console, f"drifted: {each.column} ({each.test}), KS {each.ks:.2f}")

    call.result(_shown(found), show)


@make("status", reads_only=True)
def status(call: Call) -> None:
    """Show the fleet: conditions, versions, rollouts, and what was refused."""
    from mainspring.core.time import format_instant
    from mainspring.operations.edge.fleet import status

    found = status(call.project)
    document = {
        "devices": found.devices,
        "conditions": found.conditions,
        "versions": found.versions,
        "duplicates": found.duplicates,
        "wrong_clocks": found.wrong_clocks,
        "rollouts": [_document(each) for each in found.rollouts],
        "refusals": [
            {"device": name, "reason": reason, "count": count, "last_at": format_instant(at)}
            for name, reason, count, at in found.refusals
        ],
        "releases": [{"name": each.name, "version": each.version, "bytes": each.size_bytes} for each in found.releases],
        "expires": {role: format_instant(at) for role, at in found.expires.items()},
        "uploaded": found.uploaded,
        "dropped": found.dropped,
    }
    call.result(document, lambda console: _show_status(console, found))


def _show_status(console: Console, found: FleetReport) -> None:
    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in of.items()) or "none"

    _line(console, f"{found.devices:,} devices: {counts(found.conditions)}")
    _line(console, f"Versions: {counts(found.versions)}")
    for each in found.rollouts:
        _show_rollout(console, each)
    if found.duplicates:
        _line(console, f"Two devices report as one: {', '.join(found.duplicates)}")
    if found.wrong_clocks:
        _line(console, f"Clocks that are wrong: {', '.join(found.wrong_clocks)}")
    for name, reason, count, _ in found.refusals:
        _line(console, f"Refused: {count:,} messages as {name}: {reason}")
    _line(console, f"{found.uploaded:,} records uploaded; {found.dropped:,} dropped on devices.")


def _show_rollout(console: Console, made: Rollout) -> None:
    share = f"ring {made.ring + 1} of {len(made.rings)} ({made.rings[made.ring]:.0%})"
    _line(console, f"{made.package} {made.candidate}: {made.status}, {share}{f': {made.why}' if made.why else ''}")


def _document(made: Rollout) -> dict[str, object]:
    from mainspring.core.time import format_instant

    return {
        "id": made.id,
        "package": made.package,
        "version": made.candidate,
        "before": made.fallback,
        "status": made.status,
        "ring": made.ring,
        "rings": made.rings,
        "why": made.why,
        "actor": made.actor,
        "started_at": format_instant(made.started_at),
        "history": [{"at": format_instant(at), "text": text} for at, text in made.history],
    }


def _shown(each: DeviceReport) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(each), "seen_at": _instant(each.seen_at) or None}


def _instant(at: int | None) -> str:
    from mainspring.core.time import format_instant

    return "" if at is None else format_instant(at)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


COMMANDS = (publish, withdraw, keys, rotate, sign, register, remove, rollout, devices, device, status)
