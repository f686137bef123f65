"""The fleet's control: reads reports, moves rollouts by their gates, and tells each device what to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.deploy.fleet.envelopes import desired_message, read_report
from mainspring.deploy.fleet.model import Device, Rollout
from mainspring.deploy.fleet.ports import Arrived, FleetStore, Messages
from mainspring.deploy.fleet.rings import Decision, judge, wanted
from mainspring.security.signing import SigningKey

UNKNOWN, DAMAGED, OTHER, DUPLICATE = "unknown device", "signature", "another project or device", "duplicate id"


class FleetControl:
    """One pass after another over a project's fleet. One at a time in a project.

    Args:
        key: Signs desired states; devices trust it.
        now: Clock, UTC epoch microseconds.
    """

    def __init__(
        self, project: str, store: FleetStore, messages: Messages, key: SigningKey, now: Callable[[], int]
    ) -> None:
        self._project, self._store, self._messages, self._key, self._now = project, store, messages, key, now
        self._session, self._sent = -1, dict[str, int]()

    def tick(self, wait_s: float = 0.0) -> list[tuple[Rollout, Decision]]:
        """Do one pass, and return the rollouts that moved."""
        arrived = self._messages.poll(wait_s)
        devices = self._read(arrived)
        moved = [found for each in self._running() if (found := self._move(each, devices)) is not None]
        self._tell(devices)
        return moved

    def _read(self, arrived: Iterable[Arrived]) -> list[Device]:
        """Store what devices reported, and return the fleet."""
        now, devices = self._now(), {each.id: each for each in self._store.devices()}
        changed, refused = dict[str, Device](), Counter[tuple[str, str]]()
        for each in arrived:
            known = devices.get(each.device)
            if known is None:
                refused[each.device, UNKNOWN] += 1
                continue
            try:
                report = read_report(each.content, bytes.fromhex(known.key))
            except (Corrupt, Invalid):
                refused[each.device, DAMAGED] += 1
                continue
            if (report.project, report.device, report.package) != (self._project, known.id, known.package):
                refused[each.device, OTHER] += 1
                continue
            after = known.reported(report, now, kept=each.kept)
            if after.duplicate_at != known.duplicate_at:
                refused[each.device, DUPLICATE] += 1
            if after is not known:
                devices[each.device] = changed[each.device] = after
        self._store.keep(list(changed.values()))
        if refused:
            self._store.refuse(refused, now)
        return list(devices.values())

    def _running(self) -> list[Rollout]:
        return [each for each in newest(self._store) if each.status == "running"]

    def _move(self, rollout: Rollout, devices: Sequence[Device]) -> tuple[Rollout, Decision] | None:
        now = self._now()
        decision = judge(devices, rollout, now)
        if decision.move == "wait":
            if decision.why != rollout.why:
                self._store.replace(msgspec.structs.replace(rollout, why=decision.why))
            return None
        return self._store.replace(moved(rollout, decision, now)), decision

    def _tell(self, devices: Sequence[Device]) -> None:
        """Give each device whose version changed a new revision, and send what was not sent in this session."""
        now, changed = self._now(), dict[str, Device]()
        for rollout in newest(self._store):
            versions = wanted(devices, rollout)
            for each in devices:
                if each.id in versions and versions[each.id] != each.wanted:
                    changed[each.id] = msgspec.structs.replace(
                        each, wanted=versions[each.id], revision=max(each.revision + 1, now)
                    )
        self._store.keep(list(changed.values()))  # before they are sent: a revision is never used twice
        if self._session != self._messages.session:
            self._session, self._sent = self._messages.session, {}
        due = [changed.get(each.id, each) for each in devices]
        due = [each for each in due if each.wanted is not None and self._sent.get(each.id) != each.revision]
        if due:
            self._messages.send({each.id: desired_message(self._project, each, self._key, now) for each in due})
            self._sent |= {each.id: each.revision for each in due}


def newest(store: FleetStore) -> list[Rollout]:
    """Return the newest rollout of each package."""
    found: dict[str, Rollout] = {}
    for each in store.rollouts(limit=1000):
        found.setdefault(each.package, each)
    return list(found.values())


def moved(rollout: Rollout, decision: Decision, now: int) -> Rollout:
    """Return the rollout after a decision to advance or to stop."""
    last = rollout.ring == len(rollout.rings) - 1
    changes: dict[str, Any]
    share = f"ring {rollout.ring + 1} ({rollout.rings[rollout.ring]:.0%})"
    if decision.move == "stop":
        back = "no version before" if rollout.fallback is None else f"back to version {rollout.fallback}"
        text = f"stopped in {share}, {back}: {decision.why}"
        changes = {"status": "stopped", "why": decision.why, "by_gate": True}
    elif last:
        text, changes = f"done: {decision.why}", {"status": "done", "why": decision.why}
    else:
        text, changes = f"passed {share}: {decision.why}", {"ring": rollout.ring + 1, "since": now, "why": ""}
    return msgspec.structs.replace(rollout, history=(*rollout.history, (now, text)), **changes)
