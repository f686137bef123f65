"""Devices, rollouts over them, and what was refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import msgspec

from mainspring.core.errors import Invalid

DEVICE_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
OFF_AFTER_US = 15 * 60 * 1_000_000
CLOCK_WRONG_US = 60 * 1_000_000
_KEPT_BOOTS = 8

Condition = Literal["never seen", "off", "failing", "trial", "updating", "behind", "healthy"]


class QueueDepth(msgspec.Struct, frozen=True):
    """Records that wait on a device; `dropped` for room and `lost` with damaged files."""

    rows: int = 0
    size_bytes: int = 0
    dropped: int = 0
    lost: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A report as a device signs it. Its instants are by the device's clock, which may be wrong."""

    project: str
    device: str
    package: str
    version: int | None
    state: str
    revision: int
    sequence: int
    boot: str
    at: int
    mono_us: int
    failed: dict[str, str] = {}
    problem: str = ""
    rows: int = 0
    errors: int = 0
    p99_us: int | None = None
    queue: QueueDepth = QueueDepth()


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A registered device.

    Attributes:
        key: Its public key, 64 hexadecimal digits. It signs reports and uploads.
        wanted: The version that it is to run, since the revision `revision`.
        seen_at: When its last report arrived, UTC epoch microseconds by the control plane's clock.
        skew_us: By how much its clock was ahead then.
        boots: Its former starts. A report of one of them comes from another device with the same key.
        duplicate_at: When that happened last.
    """

    id: str
    package: str
    key: str
    added_at: int
    wanted: int | None = None
    revision: int = 0
    seen_at: int | None = None
    skew_us: int = 0
    report: Report | None = None
    boots: tuple[str, ...] = ()
    duplicate_at: int | None = None

    @property
    def version(self) -> int | None:
        """The version that it runs, as far as it has reported."""
        return None if self.report is None else self.report.version

    def condition(self, now: int, off_after_us: int = OFF_AFTER_US) -> Condition:
        """Return its state in one word; `failing` means that it went back from the version that it is to run."""
        if self.report is None or self.seen_at is None:
            return "never seen"
        if now - self.seen_at > off_after_us:
            return "off"
        if self.wanted is not None and str(self.wanted) in self.report.failed:
            return "failing"
        if self.report.state == "trial":
            return "trial"
        if self.report.state == "updating":
            return "updating"
        return "healthy" if self.wanted is None or self.version == self.wanted else "behind"

    @property
    def clock_wrong(self) -> bool:
        return abs(self.skew_us) > CLOCK_WRONG_US

    def reported(self, report: Report, now: int, *, kept: bool) -> Device:
        """Return the device after a report.

        Args:
            kept: Whether the broker had kept it: then it says nothing about when the device was on.
        """
        if report.boot in self.boots:
            return msgspec.structs.replace(self, duplicate_at=now)
        before = self.report
        if before is not None and before.boot == report.boot and report.sequence <= before.sequence:
            return self
        boots = (
            self.boots if before is None or before.boot == report.boot else (*self.boots, before.boot)[-_KEPT_BOOTS:]
        )
        seen = max(self.seen_at or 0, min(report.at, now)) if kept else now
        skew = self.skew_us if kept else report.at - now
        return msgspec.structs.replace(self, report=report, boots=boots, seen_at=seen, skew_us=skew)


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """How far the records of a device's queue were taken.

    Attributes:
        until: Number of the last record that was taken or refused.
        begun: Number of the last record that taking has begun with; those between may be in the ledger already.
        taken, refused: Numbers of records.
        last_at: When the last delivery came, UTC epoch microseconds.
        profile: The newest profile of the device.
        sketched: Number of rows that came in sketches; `dropped` of them were dropped from a full queue.
    """

    device: str
    queue: str
    until: int = 0
    begun: int = 0
    taken: int = 0
    refused: int = 0
    last_at: int = 0
    profile: dict[str, Any] | None = None
    sketched: int = 0
    dropped: int = 0


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gates between rings, over the devices of the ring and of those before it.

    Attributes:
        least_healthy: The smallest share of devices that kept the version after their trial.
        least_tried: The smallest share of devices that are on to have kept or left it.
        most_error_share: The largest share of failed rows, once there are `least_rows`.
        most_p99_us: The largest median of the devices' 99th percentiles of latency.
        soak_us: The shortest time in a ring.
        off_after_us: Devices that were not seen for longer are off, and are not waited for.

    Raises:
        Invalid: A share is not in (0, 1], or a time is negative.
    """

    least_healthy: float = 0.95
    least_tried: float = 0.8
    most_error_share: float = 0.02
    least_rows: int = 50
    most_p99_us: int | None = None
    soak_us: int = 10 * 60 * 1_000_000
    off_after_us: int = OFF_AFTER_US

    def __post_init__(self) -> None:
        for name in ("least_healthy", "least_tried"):
            share = getattr(self, name)
            if not 0.0 < share <= 1.0:
                raise Invalid(f"{name} is {share}.", fix="give a share above 0, at most 1.")
        if not 0.0 <= self.most_error_share <= 1.0:
            raise Invalid(f"most_error_share is {self.most_error_share}.", fix="give a share from 0 to 1.")
        if self.soak_us < 0 or self.off_after_us <= 0:
            raise Invalid("A gate has a negative time.", fix="give durations such as 10m.")


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of a version by rings.

    Attributes:
        fallback: The version of all devices before; `None` if this is the first.
        rings: Shares of the fleet, each larger than the one before, the last 1.
        ring: Number of the current ring, from 0.
        since: When the current ring began, UTC epoch microseconds.
        why: Why it ended, or what it waits for.
        by_gate: Whether a gate stopped it, not a person.
        history: (instant, what happened).
    """

    id: str
    package: str
    candidate: int
    fallback: int | None
    rings: tuple[float, ...]
    gates: Gates
    actor: str
    started_at: int
    ring: int = 0
    since: int = 0
    status: Literal["running", "done", "stopped"] = "running"
    why: str = ""
    by_gate: bool = False
    history: tuple[tuple[int, str], ...] = ()
    revision: int = 0

    @property
    def current(self) -> int | None:
        """The version of devices outside the rings, or of all once it ended."""
        return self.candidate if self.status == "done" else self.fallback


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were refused, of one sender and for one reason."""

    device: str
    reason: str
    count: int
    last_at: int


def check_rings(rings: tuple[float, ...]) -> tuple[float, ...]:
    """Return the shares of rings.

    Raises:
        Invalid: They do not grow to 1.
    """
    growing = all(small < large for small, large in pairwise(rings))
    if not rings or not growing or not rings[0] > 0.0 or rings[-1] != 1.0:
        shown = ", ".join(f"{share:g}" for share in rings)
        raise Invalid(f"The rings are {shown or 'none'}.", fix="give growing shares that end with 1: 0.01, 0.1, 1.")
    return rings
