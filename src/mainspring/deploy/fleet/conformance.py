"""Tests that every store of a fleet passes; subclass them for a new adapter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import DAY
from mainspring.deploy.fleet.model import Device, Gates, Refusal, Rollout, Uploaded
from mainspring.deploy.fleet.ports import FleetStore


def device(id: str, **changes: Any) -> Device:
    return Device(**{"id": id, "package": "late", "key": f"{len(id):064x}", "added_at": 1, **changes})


def rollout(id: str, **changes: Any) -> Rollout:
    made = {"package": "late", "candidate": 2, "fallback": 1, "rings": (0.1, 1.0), "gates": Gates(), "actor": "ana"}
    return Rollout(**{"id": id, "started_at": 5, **made, **changes})


class FleetStoreConformance:
    def test_devices_are_added_changed_and_removed(self, store: FleetStore) -> None:
        assert (store.devices(), store.device("b")) == ([], None)
        store.add(device("b"))
        store.add(device("a"))
        assert [each.id for each in store.devices()] == ["a", "b"]
        with pytest.raises(Conflict, match="registered for 'late'"):
            store.add(device("a", key="9" * 64))
        store.remove("b")
        with pytest.raises(NotFound):
            store.remove("b")
        store.keep([device("a", wanted=7), device("b", wanted=7)])  # b was removed meanwhile
        assert store.devices() == [device("a", wanted=7)]

    def test_one_rollout_of_a_package_runs_and_changes_are_compared(self, store: FleetStore) -> None:
        first = store.begin(rollout("r1"))
        with pytest.raises(Conflict, match="running"):
            store.begin(rollout("r2"))
        store.begin(rollout("r3", package="other"))
        ended = store.replace(msgspec.structs.replace(first, status="stopped", by_gate=True))
        with pytest.raises(Conflict, match="has changed"):
            store.replace(msgspec.structs.replace(first, status="done"))
        store.begin(rollout("r4", started_at=9))
        assert [each.id for each in store.rollouts("late")] == ["r4", "r1"]
        assert store.rollouts("late")[1] == ended
        assert [each.id for each in store.rollouts(limit=1)] == ["r4"]

    def test_refusals_are_counted_and_few_are_kept(self, store: FleetStore) -> None:
        store.refuse({("x", "signature"): 2}, 10)
        store.refuse({("x", "signature"): 1, ("y", "unknown device"): 1}, 20)
        assert store.refusals() == [
            Refusal(device="x", reason="signature", count=3, last_at=20),
            Refusal(device="y", reason="unknown device", count=1, last_at=20),
        ]
        store.refuse({(f"z{number}", "signature"): 1 for number in range(200)}, 30)
        assert {each.last_at for each in store.refusals()} == {30}

    def test_what_was_taken_and_its_sketches_are_stored_together(self, store: FleetStore) -> None:
        assert store.upload("a", "q") == Uploaded(device="a", queue="q")
        assert (store.days("a"), store.waiting(9)) == ({}, None)
        store.take(Uploaded(device="a", queue="q", until=5, begun=5), [b"one", b"two"], {DAY: b"d1", 2 * DAY: b"d2"})
        store.take(Uploaded(device="a", queue="q", until=9, begun=9), [b"three"], {2 * DAY: b"d2+"})
        assert store.uploads() == [Uploaded(device="a", queue="q", until=9, begun=9)]
        assert store.days("a") == {DAY: b"d1", 2 * DAY: b"d2+"}
        store.take(Uploaded(device="a", queue="q", until=9, begun=9), (), {9 * DAY: b"d9"})
        assert sorted(store.days("a")) == [2 * DAY, 9 * DAY]

    def test_waiting_sketches_keep_their_key_until_they_are_added(self, store: FleetStore) -> None:
        store.take(Uploaded(device="a", queue="q"), [b"one", b"two"])
        first = store.waiting(9)
        assert first is not None
        store.take(Uploaded(device="a", queue="q"), [b"three"])
        assert store.waiting(9) == first
        store.added(first[0])
        second = store.waiting(9)
        assert second is not None
        assert (sorted(first[1]), second[1]) == ([b"one", b"two"], [b"three"])
        assert second[0] != first[0]
        store.added(second[0])
        assert store.waiting(9) is None

    def test_a_removed_device_leaves_nothing(self, store: FleetStore) -> None:
        store.add(device("a"))
        store.take(Uploaded(device="a", queue="q", until=5), (), {DAY: b"d"})
        store.remove("a")
        assert (store.uploads(), store.days("a")) == ([], {})
