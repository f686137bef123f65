"""Devices, rollouts over them, and what they upload."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.deploy.edge.repository import Release
from mainspring.deploy.fleet.control import FleetControl, newest
from mainspring.deploy.fleet.model import DEVICE_ID_PATTERN, Condition, Device, Gates, Rollout, Uploaded, check_rings
from mainspring.deploy.fleet.records import Intake, Privacy
from mainspring.deploy.fleet.rings import Decision, judge, ring_of
from mainspring.operations.auditing import audit
from mainspring.operations.edge.sketches import DeviceSketch, counted, device_sketch
from mainspring.project import Project
from mainspring.registry.processes import local_user

_KEY = re.compile(r"[0-9a-f]{64}")
_LISTED = 8
RINGS = (0.01, 0.1, 1.0)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A device, as people see it. Instants are UTC epoch microseconds by this machine's clock."""

    id: str
    package: str
    condition: Condition
    version: int | None
    wanted: int | None
    ring: int | None  # of the newest rollout of its package, from 1
    seen_at: int | None
    clock_ahead_us: int | None  # where the device's clock is wrong by more than a minute
    duplicate: bool
    problem: str
    failed: dict[str, str]
    rows: int
    errors: int
    p99_us: int | None
    queued: int
    dropped: int
    uploaded: int
    refused: int
    sketched: int  # rows that came in sketches; some of them were dropped
    profile: dict[str, Any] | None = None  # the newest, of all rows of about an hour
    sketch: DeviceSketch | None = None  # of one device, where it is asked for


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The fleet: counts of conditions and versions, rollouts, what was refused, and when metadata expires."""

    devices: int
    conditions: dict[str, int]
    versions: dict[str, int]
    duplicates: tuple[str, ...]
    wrong_clocks: tuple[str, ...]
    rollouts: tuple[Rollout, ...]
    refusals: tuple[tuple[str, str, int, int], ...]  # device, reason, count, last
    releases: tuple[Release, ...]
    expires: dict[str, int]
    dropped: int
    uploaded: int


def register(project: Project, device: str, package: str, key: str) -> Device:
    """Register a device by its public key, so that its reports and uploads are believed.

    Raises:
        Invalid: The id or the key is malformed.
        Conflict: The id is registered.
    """
    if re.fullmatch(DEVICE_ID_PATTERN, device) is None:
        raise Invalid(f"{device!r:.80} is no id of a device.", fix="use 1 to 64 letters, digits, `_`, `.` and `-`.")
    if _KEY.fullmatch(key) is None:
        raise Invalid(
            f"{key!r:.80} is no public key of a device.",
            fix="give the 64 hexadecimal digits that `mainspring-edge key FOLDER` prints on it.",
        )
    twin = next((each for each in project.fleet.devices() if each.key == key), None)
    if twin is not None and twin.id != device:
        raise Conflict(
            f"The key {key[:12]}… is that of device {twin.id!r}: was its disk copied?",
            fix="remove `device.key` on the copy, and register the key that it makes then.",
        )
    made = Device(id=device, package=package, key=key, added_at=project.wall.now())
    with project.audit.together():
        project.fleet.add(made)
        audit(project, "edge.register", f"device/{device}", package)
    return made


def remove(project: Project, device: str) -> None:
    """Remove a device: its reports and uploads are refused from now on. Raises `NotFound`."""
    with project.audit.together():
        project.fleet.remove(device)
        audit(project, "edge.remove", f"device/{device}")


def start(
    project: Project, package: str, version: int, rings: Sequence[float] = RINGS, gates: Gates | None = None
) -> Rollout:
    """Begin a rollout of a published version by rings.

    Raises:
        NotFound: The version is not published, or there is no device of the package.
        Conflict: A rollout of the package is running, or the fleet is to run the version already.
        Invalid: The rings do not grow to 1.
    """
    project.packages.release(package, version)
    if not any(each.package == package for each in project.fleet.devices()):
        raise NotFound(f"No device of {package!r} is registered.", fix="`mainspring edge register DEVICE`.")
    before = project.fleet.rollouts(package, 1)
    fallback = before[0].current if before else None
    if before and before[0].status != "running" and fallback == version:
        raise Conflict(f"The fleet of {package!r} is to run version {version} already.", fix="name another version.")
    now = project.wall.now()
    with project.audit.together():
        made = project.fleet.begin(
            Rollout(
                id=new_id(),
                package=package,
                candidate=version,
                fallback=fallback,
                rings=check_rings(tuple(rings)),
                gates=gates or Gates(),
                actor=local_user(),
                started_at=now,
                since=now,
                history=((now, f"started by {local_user()}"),),
            )
        )
        audit(
            project, "edge.rollout", f"package/{package}:{version}", f"rings {', '.join(f'{each:g}' for each in rings)}"
        )
    return made


def stop(project: Project, package: str, reason: str = "") -> Rollout:
    """Stop the running rollout of a package; every device goes back.

    Raises:
        NotFound: None is running.
    """
    found = next((each for each in project.fleet.rollouts(package, 1) if each.status == "running"), None)
    if found is None:
        raise NotFound(f"No rollout of {package!r} is running.", fix="`mainspring edge status` shows the last ones.")
    why = f"stopped by {local_user()}" + (f": {reason}" if reason else "")
    history = (*found.history, (project.wall.now(), why))
    with project.audit.together():
        made = project.fleet.replace(msgspec.structs.replace(found, status="stopped", why=why, history=history))
        audit(project, "edge.stop", f"package/{package}:{found.candidate}", reason)
    return made


def devices(project: Project, *, condition: str | None = None, package: str | None = None) -> list[DeviceReport]:
    """Return devices by id, of a condition or a package."""
    now, uploads, rollouts = project.wall.now(), _uploads(project), _rollouts(project)
    found = [_report(each, uploads.get(each.id, []), rollouts, now) for each in project.fleet.devices()]
    return [each for each in found if condition in (None, each.condition) and package in (None, each.package)]


def device(project: Project, id: str) -> DeviceReport:
    """Return one device. Raises `NotFound`."""
    known = project.fleet.device(id)
    if known is None:
        raise NotFound(f"There is no device {id!r:.80}.", fix="`mainspring edge devices` lists them.")
    found = _report(known, _uploads(project).get(id, []), _rollouts(project), project.wall.now())
    return replace(found, sketch=device_sketch(project, id))


def status(project: Project) -> FleetReport:
    """Return the state of the fleet."""
    every = devices(project)
    return FleetReport(
        devices=len(every),
        conditions=dict(Counter[str](each.condition for each in every)),
        versions=dict(sorted(Counter(f"{e.package} {e.version or 'none'}" for e in every).items())),
        duplicates=tuple(each.id for each in every if each.duplicate)[:_LISTED],
        wrong_clocks=tuple(each.id for each in every if each.clock_ahead_us is not None)[:_LISTED],
        rollouts=tuple(newest(project.fleet)),
        refusals=tuple((e.device, e.reason, e.count, e.last_at) for e in project.fleet.refusals()),
        releases=tuple(project.packages.releases()),
        expires=dict(project.packages.expires()),
        dropped=sum(each.dropped for each in every),
        uploaded=sum(each.uploaded for each in every),
    )


def decision(project: Project, rollout: Rollout) -> Decision:
    """Return what the gates say about a running rollout now."""
    return judge(project.fleet.devices(), rollout, project.wall.now())


def take_records(project: Project, device: str, body: bytes, signature: str) -> Uploaded:
    """Take a device's upload into the prediction log, each record once. Errors are those of `Intake.take`."""

    def releases(package: str) -> Mapping[int, Release]:
        return {each.version: each for each in project.packages.releases(package)}

    if re.fullmatch(DEVICE_ID_PATTERN, device) is None:
        raise Denied(f"{device!r:.80} is no id of a device.")
    intake = Intake(
        project.settings.scope, project.fleet, project.prediction_log, project.predictions, releases,
        project.wall.now, partial(counted, project), partial(_privacy, project),
    )  # fmt: skip
    with project.locks.hold(f"edge-records-{zlib.crc32(device.encode()) % 16}"):
        return intake.take(device, body, signature)


def controller(project: Project) -> Callable[[], list[tuple[Rollout, Decision]]]:
    """Return one pass of the fleet's control; call it again and again. Of several workers one does it at a time."""
    control = FleetControl(project.settings.scope, project.fleet, project.broker, project.signing_key, project.wall.now)

    def look() -> list[tuple[Rollout, Decision]]:
        try:
            with project.locks.hold("edge-fleet", wait_s=0.0):
                moved = control.tick()
        except Conflict:  # another worker does it, or a person has just changed a rollout
            project.broker.close()
            return []
        for rollout, decided in moved:
            audit(project, f"edge.{decided.move}", f"package/{rollout.package}:{rollout.candidate}", decided.why)
        return moved

    return look


def _privacy(project: Project, release: Release) -> Privacy:
    endpoint = project.definitions.endpoints.get(release.endpoint)
    encrypted = endpoint is None or endpoint.log.personal == "encrypt"
    try:
        return Privacy(project.sketching.personal(release.bundle), encrypted)
    except (Invalid, NotFound, Corrupt):  # the bundle is gone, or of another project
        return Privacy(None, encrypted)


def _uploads(project: Project) -> dict[str, list[Uploaded]]:
    found: dict[str, list[Uploaded]] = {}
    for each in project.fleet.uploads():
        found.setdefault(each.device, []).append(each)
    return found


def _rollouts(project: Project) -> dict[str, Rollout]:
    return {each.package: each for each in newest(project.fleet)}


def _report(device: Device, uploads: Sequence[Uploaded], rollouts: Mapping[str, Rollout], now: int) -> DeviceReport:
    report = device.report
    return DeviceReport(
        id=device.id,
        package=device.package,
        condition=device.condition(now),
        version=device.version,
        wanted=device.wanted,
        ring=ring_of(device.id, rollouts[device.package]) if device.package in rollouts else None,
        seen_at=device.seen_at,
        clock_ahead_us=device.skew_us if device.clock_wrong else None,
        duplicate=device.duplicate_at is not None,
        problem="" if report is None else report.problem,
        failed={} if report is None else report.failed,
        rows=0 if report is None else report.rows,
        errors=0 if report is None else report.errors,
        p99_us=None if report is None else report.p99_us,
        queued=0 if report is None else report.queue.rows,
        dropped=0 if report is None else report.queue.dropped,
        uploaded=sum(each.taken for each in uploads),
        refused=sum(each.refused for each in uploads),
        sketched=sum(each.sketched for each in uploads),
        profile=max((each.profile for each in uploads if each.profile), key=lambda each: int(each["at"]), default=None),
    )
