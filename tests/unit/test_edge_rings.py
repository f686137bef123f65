"""Rings and gates, as functions of what devices have reported."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.deploy.fleet.model import Device, Gates, Report, Rollout, check_rings
from mainspring.deploy.fleet.rings import in_ring, judge, wanted

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000


def rollout(**changed: object) -> Rollout:
    base = Rollout(
        id="one", package="p", candidate=2, fallback=1, rings=(0.01, 0.1, 1.0), gates=Gates(), actor="ana",
        started_at=0, since=0,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changed)


def device(number: int, kind: str = "behind", *, rows: int = 100, errors: int = 0, p99_us: int = 900) -> Device:
    version = {"kept": 2, "trial": 2}.get(kind, 1)
    report = Report(
        project="x", device=f"d{number}", package="p", version=version, state="trial" if kind == "trial" else "running",
        revision=1, sequence=1, boot="b", at=NOW, mono_us=0, failed={"2": "it failed"} if kind == "left" else {},
        rows=rows, errors=errors, p99_us=p99_us,
    )  # fmt: skip
    made = Device(id=f"d{number}", package="p", key="k", added_at=0, wanted=2, report=report, seen_at=NOW)
    if kind == "off":
        return msgspec.structs.replace(made, seen_at=NOW - 60 * MINUTE)
    return msgspec.structs.replace(made, report=None, seen_at=None) if kind == "never" else made


def fleet(**kinds: int) -> list[Device]:
    names = [kind for kind, count in kinds.items() for _ in range(count)]
    return [device(number, kind) for number, kind in enumerate(names)]


WHOLE = {"rings": (1.0,), "since": NOW - 20 * MINUTE}


@given(count=st.integers(1, 400), shares=st.sets(st.integers(1, 99), min_size=1, max_size=4), id=st.text(max_size=5))
@settings(max_examples=examples(gate=30, deep=1000), deadline=None)
def test_rings_grow_to_the_whole_fleet(count: int, shares: set[int], id: str) -> None:
    devices = [device(number) for number in range(count)]
    rings = (*(each / 100 for each in sorted(shares)), 1.0)
    before: set[str] = set()
    for ring in range(len(rings)):
        now = {each.id for each in in_ring(devices, rollout(id=id, rings=rings, ring=ring))}
        assert now, "a ring has a device"
        assert before <= now
        before = now
    assert len(before) == count


def test_a_ring_is_about_its_share_and_another_rollout_begins_elsewhere() -> None:
    devices = [device(number) for number in range(2000)]
    one, two = (in_ring(devices, rollout(id=id, ring=1)) for id in ("one", "two"))
    assert 150 < len(one) < 250
    assert len({each.id for each in one} & {each.id for each in two}) < 60


def test_devices_outside_the_ring_keep_the_version_before() -> None:
    devices = [device(number) for number in range(100)]
    found = wanted(devices, rollout(ring=1))
    assert set(found.values()) == {1, 2}
    assert set(wanted(devices, rollout(status="stopped")).values()) == {1}
    assert set(wanted(devices, rollout(status="done")).values()) == {2}
    assert set(wanted(devices, rollout(fallback=None)).values()) == {None, 2}


@pytest.mark.parametrize(
    ("kinds", "move", "why"),
    [
        ({"kept": 80, "behind": 20}, "advance", "80 of 80 devices kept version 2"),
        ({"kept": 79, "behind": 21}, "wait", "79 of 100 devices that are on have tried version 2"),
        ({"kept": 50, "trial": 50}, "wait", "50 of 100"),
        ({"kept": 90, "left": 5, "behind": 5}, "advance", "90 of 95"),
        ({"kept": 90, "left": 6}, "stop", "6 of 96 devices went back"),
        ({"left": 1}, "stop", "1 of 1"),
        ({"kept": 8, "off": 90, "never": 2}, "advance", "8 of 8"),  # those that are off are not waited for
        ({"off": 3, "never": 2}, "wait", "all 5 devices of the ring are off"),
        ({"left": 2, "off": 98}, "stop", "2 of 2"),
    ],
)
def test_gates(kinds: dict[str, int], move: str, why: str) -> None:
    found = judge(fleet(**kinds), rollout(**WHOLE), NOW)
    assert found.move == move
    assert why in found.why


def test_errors_and_latency_stop_a_rollout() -> None:
    devices = [device(number, "trial", rows=10, errors=1) for number in range(10)]
    assert judge(devices, rollout(**WHOLE), NOW).why == "10 of 100 rows failed with version 2"
    assert judge(devices[:4], rollout(**WHOLE), NOW).move == "wait"  # 40 rows are too few to judge
    slow = [device(number, "kept", p99_us=90_000 if number > 3 else 10) for number in range(10)]
    gates = Gates(most_p99_us=50_000)
    assert "latencies (p99) is 90,000 µs; the gate is 50,000" in judge(slow, rollout(**WHOLE, gates=gates), NOW).why
    assert judge(slow, rollout(**WHOLE), NOW).move == "advance"


def test_a_ring_soaks() -> None:
    found = judge(fleet(kept=10), rollout(rings=(1.0,), since=NOW - MINUTE), NOW)
    assert (found.move, found.why) == ("wait", "the ring began 60 s ago")


@pytest.mark.parametrize("rings", [(), (0.5,), (0.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.5), (1.5,)])
def test_rings_that_do_not_grow_to_all_are_refused(rings: tuple[float, ...]) -> None:
    with pytest.raises(Invalid, match="The rings are"):
        check_rings(rings)


@pytest.mark.parametrize(
    "wrong", [{"least_healthy": 0.0}, {"least_tried": 2.0}, {"most_error_share": -1.0}, {"soak_us": -1}]
)
def test_gates_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        Gates(**wrong)


def test_a_start_that_was_over_reports_again_from_a_second_device() -> None:
    def report(boot: str, sequence: int) -> Report:
        found = device(0).report
        assert found is not None
        return msgspec.structs.replace(found, boot=boot, sequence=sequence)

    one = device(0).reported(report("first", 2), NOW, kept=False).reported(report("second", 3), NOW, kept=False)
    assert one.duplicate_at is None
    two = one.reported(report("first", 4), NOW + 5, kept=False)
    assert (two.duplicate_at, two.report) == (NOW + 5, one.report)
