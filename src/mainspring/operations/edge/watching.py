"""The fleet as the monitor and `doctor` see it: stopped rollouts, unseen devices, expiring keys, the broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mainspring.core.time import DAY, HOUR, format_duration, format_instant
from mainspring.deploy.edge.repository import LIFETIMES
from mainspring.deploy.fleet.model import Device
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import FLEET, Signal
from mainspring.operations.findings import Finding, well
from mainspring.project import Project

STOPPED, UNSEEN = "rollout stopped", "unseen"
_JUDGED_HOURS = 24
_NAMED = 5
_ROOT_US = 30 * DAY  # before the root expires, whose key may be far away


def judged(project: Project) -> Judged:
    """Return the judgement of the last day's hours, by the machine's clock.

    A device that is back was seen in every hour, as far as this can tell: its incident ends.
    """
    now, limit = project.wall.now(), project.settings.fleet_unseen_us
    last = now // HOUR * HOUR
    hours = [(start, start + HOUR) for start in range(last - _JUDGED_HOURS * HOUR, last + HOUR, HOUR)]
    signals = [
        Signal(
            channel=FLEET, endpoint="", statistic=STOPPED, column=each.package, version=str(each.candidate),
            start=at // HOUR * HOUR, end=at // HOUR * HOUR + HOUR, severity=1.0, page=True,
            detail=f"The rollout of {each.package} {each.candidate} was {each.history[-1][1]}",
        )
        for each in project.fleet.rollouts()
        if each.by_gate and hours[0][0] <= (at := each.history[-1][0]) <= now
    ]  # fmt: skip
    unseen: dict[str, list[Device]] = defaultdict(list)
    for device in project.fleet.devices():
        if now - _seen(device) > limit:
            unseen[device.package].append(device)
    for package, devices in unseen.items():
        for start, end in hours:
            until = min(end, now)
            mine = [each for each in devices if _seen(each) + limit < until]
            if mine:
                signals.append(_unseen(package, mine, start, end, limit))
    return Judged("", FLEET, tuple(hours), tuple(signals))


def _seen(device: Device) -> int:
    return device.added_at if device.seen_at is None else device.seen_at


def _unseen(package: str, devices: list[Device], start: int, end: int, limit: int) -> Signal:
    names = ", ".join(each.id for each in sorted(devices, key=_seen)[:_NAMED])
    more = f" and {len(devices) - _NAMED} more" if len(devices) > _NAMED else ""
    return Signal(
        channel=FLEET, endpoint="", statistic=UNSEEN, column=package, start=start, end=end, severity=1.0,
        value=float(len(devices)), expected=0.0,
        detail=f"Not seen for over {format_duration(limit)}: {names}{more}.",
    )  # fmt: skip


def check_fleet(project: Project) -> Iterator[Finding]:
    """Yield findings about the repository's metadata, and about the broker if the profile names one."""
    now, name = project.wall.now(), "fleet"
    keys = project.packages.role_keys() if project.packages.folder.exists() else []
    for each in keys:
        least_us = _ROOT_US if each.role == "root" else LIFETIMES[each.role].total_seconds() * 1e6 / 4
        if each.expires - now < least_us:
            offline = each.role == "root" and not each.present
            yield Finding(
                check=name,
                ok=False,
                detail=f"the {each.role} metadata of the packages' repository expires {format_instant(each.expires)}; "
                "devices refuse it from then on",
                fix=f"{'attach the root key (`fleet_root_key`), and ' if offline else ''}run `mainspring edge sign`",
            )
        elif not each.present and each.role != "root":
            yield Finding(
                check=name, ok=False, detail=f"the key {each.file} is missing: nothing can be published",
                fix="restore it from a backup, or run `mainspring edge rotate` with the root key",
            )  # fmt: skip
    if keys:
        yield well(name, f"the repository has {len(project.packages.releases())} versions")
    if project.settings.fleet is not None:
        project.broker.check()
        yield well(name, f"the broker {project.settings.fleet.shown} takes the project")
