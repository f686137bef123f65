"""A fleet of 1,000 devices updates by rings: some are off, some slow, some failing, and one version is bad."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import pytest

from kit.depth import examples
from kit.device_fleet import Fleet, fleet
from kit.edge_packages import NAME
from kit.simulated_devices import Behaviour, simulate
from kit.waiting import wait_until
from mainspring.deploy.fleet.model import Device, Gates
from mainspring.deploy.fleet.rings import in_ring, place
from mainspring_edge.health import Limits
from mainspring_edge.memory import device_key

COUNT, PROCESSES = examples(gate=12, deep=1000), examples(gate=1, deep=4)
OFF_AFTER_US = 600_000_000  # a busy machine lets a device wait for its turn
GATES = Gates(
    least_healthy=0.8,
    least_tried=0.9,
    soak_us=1_000_000,
    off_after_us=OFF_AFTER_US,
    least_rows=5,
)
RINGS = (0.01, 0.1, 1.0)
TRIAL_S = examples(gate=2, deep=10) / 10
PATIENCE_S = examples(gate=120, deep=1500)

pytestmark = pytest.mark.timeout(examples(gate=300, deep=3600))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Memory where there is some: it is not the disk that is tested."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    made = Path(tempfile.mkdtemp(prefix="fleet", dir=place))
    yield made
    shutil.rmtree(made)


def passes(made: Fleet, took_s: list[float]) -> None:
    begun = time.perf_counter()
    made.control.tick()
    took_s.append(time.perf_counter() - begun)


def test_a_fleet_updates_by_rings(folder: Path) -> None:
    devices = [f"depot-{number:04}" for number in range(COUNT)]
    behaviour = Behaviour(
        3 * TRIAL_S, off=frozenset(devices[5::20]), slow=frozenset(devices[7::20]), failing=frozenset(devices[9::100])
    )
    with fleet(folder, devices) as made:
        home, took_s = folder / "devices", list[float]()
        for each in devices:
            key = device_key(home / each).public_key().public_bytes_raw().hex()
            made.store.add(Device(id=each, package=NAME, key=key, added_at=made.site.now()))
        setup = made.setup("any", report_every_s=5 * TRIAL_S, limits=Limits(trial_s=TRIAL_S, least_rows=3))
        address = f"{made.broker.scheme}://{{}}:{{}}@127.0.0.1:{made.broker.port}"
        context = multiprocessing.get_context("spawn")
        parts = [devices[part::PROCESSES] for part in range(PROCESSES)]
        processes = [context.Process(target=simulate, args=(part, home, setup, address, behaviour)) for part in parts]
        for each in processes:
            each.start()
        try:
            figures = [_roll(made, version, took_s, behaviour.failing) for version in (1, 2)]
            on = COUNT - len(behaviour.off)
            counts = _versions(made)
            assert counts[2] >= 0.9 * (on - len(behaviour.failing))
            wait_until(lambda: _settled(made, took_s, 2, on - len(behaviour.failing)), "the fleet", PATIENCE_S)
            assert {each.id for each in made.store.devices() if _failed(each, 2)} == behaviour.failing
            (home / "on").touch()  # those that were off are back
            wait_until(
                lambda: _settled(made, took_s, 2, COUNT - len(behaviour.failing)), "the fleet", PATIENCE_S
            )  # fmt: skip
            made.site.publish(3, wrong=True)
            begun = time.monotonic()
            bad = made.roll(3, rings=RINGS, gates=GATES)
            wait_until(lambda: _step(made, took_s) and made.rollout.status == "stopped", "the fleet", PATIENCE_S)
            ring = {each.id for each in in_ring(made.store.devices(), bad)}
            stopped_s = time.monotonic() - begun
            wait_until(lambda: _settled(made, took_s, 2, COUNT - len(behaviour.failing)), "the fleet", PATIENCE_S)
            hurt = {each.id for each in made.store.devices() if _failed(each, 3)}
            assert hurt <= ring, "no device outside of the first ring has tried the bad version"
            assert made.store.refusals() == []
        finally:
            (home / "stop").touch()
            for each in processes:
                each.join(60)
                each.kill()
        took_s.sort()
        middle, worst = (1e3 * took_s[at] for at in (len(took_s) // 2, -1))
        off, slow, failing = (len(each) for each in (behaviour.off, behaviour.slow, behaviour.failing))
        print(f"{COUNT} devices in {PROCESSES} processes: {off} off, {slow} slow, {failing} failing.")
        print(f"The first version in {figures[0]:.0f} s, the second by rings in {figures[1]:.0f} s.")
        print(f"A bad one was stopped after {stopped_s:.0f} s, and {len(hurt)} devices had tried it.")
        print(f"A pass of the control: median {middle:.0f} ms, worst {worst:.0f} ms.")


def _roll(made: Fleet, version: int, took_s: list[float], failing: Collection[str]) -> float:
    """Roll a version out to the whole fleet, and return how long that took, s.

    A first ring of one device that fails would stop it, rightly: the rollout is one whose first ring has none.
    """
    if version > 1:
        made.site.publish(version)
    begun = time.monotonic()
    rings = RINGS if version > 1 else (1.0,)
    id = next(id for number in count() if not _first(made, id := f"{version}-{number}") & set(failing))
    made.roll(version, rings=rings, gates=GATES, id=id)
    wait_until(lambda: _step(made, took_s) and made.rollout.status == "done", "the fleet", PATIENCE_S)
    return time.monotonic() - begun


def _first(made: Fleet, id: str) -> set[str]:
    """Return the devices of the first ring of a rollout with this id."""
    placed = sorted((place(each.id, id), each.id) for each in made.store.devices())
    return {each for at, each in placed if at < RINGS[0]} | {each for _, each in placed[:1]}


def _step(made: Fleet, took_s: list[float]) -> bool:
    passes(made, took_s)
    time.sleep(TRIAL_S / 5)
    return True


def _settled(made: Fleet, took_s: list[float], version: int, count: int) -> bool:
    _step(made, took_s)
    return _versions(made)[version] == count


def _versions(made: Fleet) -> Counter[int | None]:
    return Counter(
        each.version for each in made.store.devices() if each.report is not None and each.report.state == "running"
    )


def _failed(device: Device, version: int) -> bool:
    return device.report is not None and str(version) in device.report.failed
