"""Which devices are in a ring, and what its gates say: functions of what devices have reported."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mainspring.deploy.fleet.model import Device, Rollout


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of a ring by what became of them, and the figures that gates look at."""

    devices: int
    off: int
    kept: int  # on the version after its trial
    left: int  # went back from it, or refused it
    trial: int
    rows: int
    errors: int
    p99_us: float | None  # median of the devices' own

    @property
    def on(self) -> int:
        return self.devices - self.off


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision on a rollout, and its reason."""

    move: Literal["wait", "advance", "stop"]
    why: str
    counts: Counts


def place(device: str, salt: str) -> float:
    """Return a device's place in [0, 1), the same each time. Another rollout (`salt`) begins with other devices."""
    digest = hashlib.sha256(f"{salt}\0{device}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def in_ring(devices: Iterable[Device], rollout: Rollout) -> list[Device]:
    """Return the devices of the current ring and those before it: at least one, if there is any."""
    placed = sorted((place(each.id, rollout.id), each.id, each) for each in devices if each.package == rollout.package)
    share = rollout.rings[rollout.ring]
    return [each for at, _, each in placed if at < share] or [each for _, _, each in placed[:1]]


def ring_of(device: str, rollout: Rollout) -> int:
    """Return the number of the ring, from 1, in which a rollout reaches a device."""
    at = place(device, rollout.id)
    return next(ring for ring, share in enumerate(rollout.rings, 1) if at < share)


def wanted(devices: Sequence[Device], rollout: Rollout) -> dict[str, int | None]:
    """Return device -> the version that it is to run."""
    mine = [each.id for each in devices if each.package == rollout.package]
    if rollout.status != "running":
        return dict.fromkeys(mine, rollout.current)
    ring = {each.id for each in in_ring(devices, rollout)}
    return {id: rollout.candidate if id in ring else rollout.fallback for id in mine}


def count(devices: Sequence[Device], rollout: Rollout, now: int) -> Counts:
    """Return the counts of a ring's devices."""
    version, off_after = rollout.candidate, rollout.gates.off_after_us
    conditions = {each.id: each.condition(now, off_after) for each in devices}
    left = [each for each in devices if each.report is not None and str(version) in each.report.failed]
    gone = {each.id for each in left}
    on = [each for each in devices if each.version == version and each.id not in gone]
    kept = [each for each in on if each.report is not None and each.report.state == "running"]
    judged = [each.report for each in on if each.report is not None]
    latencies = [each.p99_us for each in judged if each.p99_us is not None]
    tried = gone | {each.id for each in kept}
    return Counts(
        devices=len(devices),
        off=sum(each in ("off", "never seen") and id not in tried for id, each in conditions.items()),
        kept=len(kept),
        left=len(left),
        trial=len(on) - len(kept),
        rows=sum(each.rows for each in judged),
        errors=sum(each.errors for each in judged),
        p99_us=statistics.median(latencies) if latencies else None,
    )


def judge(devices: Sequence[Device], rollout: Rollout, now: int) -> Decision:
    """Return what the gates say about the current ring.

    It stops as soon as a gate cannot be passed any more; it advances once all are passed; else it waits.

    Args:
        devices: The fleet.
    """
    gates, counts = rollout.gates, count(in_ring(devices, rollout), rollout, now)
    why = _stops(rollout, counts)
    if why:
        return Decision("stop", why, counts)
    tried = counts.kept + counts.left
    if not counts.on:
        return Decision("wait", f"all {counts.devices} devices of the ring are off", counts)
    if tried < gates.least_tried * counts.on or not counts.kept:
        return Decision(
            "wait", f"{tried} of {counts.on} devices that are on have tried version {rollout.candidate}", counts
        )
    if now - rollout.since < gates.soak_us:
        return Decision("wait", f"the ring began {(now - rollout.since) // 1_000_000} s ago", counts)
    return Decision("advance", f"{counts.kept} of {tried} devices kept version {rollout.candidate}", counts)


def _stops(rollout: Rollout, counts: Counts) -> str:
    gates = rollout.gates
    most = (1 - gates.least_healthy) * max(1, counts.on)
    if counts.left > most:
        return f"{counts.left} of {counts.on} devices went back from version {rollout.candidate}"
    if counts.rows >= gates.least_rows and counts.errors > gates.most_error_share * counts.rows:
        return f"{counts.errors} of {counts.rows} rows failed with version {rollout.candidate}"
    if gates.most_p99_us is not None and counts.p99_us is not None and counts.p99_us > gates.most_p99_us:
        return (
            f"the median of the devices' latencies (p99) is {counts.p99_us:,.0f} µs; the gate is {gates.most_p99_us:,}"
        )
    return ""
