"""A fleet of real agents over a real broker and a real repository."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from kit.depth import deep
from kit.device_fleet import GATES, LIMITS, PROJECT, Fleet, fleet
from kit.edge_packages import KEY, NAME, Sum
from kit.mosquitto import certified
from kit.waiting import wait_until
from mainspring.core.errors import Conflict, Unavailable
from mainspring.core.settings import Url
from mainspring.deploy.adapters.mqtt import MqttMessages
from mainspring.deploy.fleet.envelopes import desired_message
from mainspring.deploy.fleet.model import Device
from mainspring.security.signing import SigningKey
from mainspring_edge.agent import Agent
from mainspring_edge.errors import EdgeError, Refused
from mainspring_edge.health import Limits
from mainspring_edge.link import read_desired

DEVICES = [f"depot-{number}" for number in range(4)]
DAY_US = 86_400_000_000


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, [*DEVICES, "stranger"]) as found:
        yield found


def all_on_first(made: Fleet, devices: list[str] = DEVICES) -> None:
    for each in devices:
        made.add(each)
    made.roll(1)
    made.until(lambda: made.rollout.status == "done")
    assert set(made.versions().values()) == {1}


def conditions(made: Fleet) -> dict[str, str]:
    return {each.id: each.condition(made.site.now()) for each in made.store.devices()}


def refused(made: Fleet) -> set[tuple[str, str]]:
    return {(each.device, each.reason) for each in made.store.refusals()}


def test_a_good_version_reaches_every_device_ring_by_ring(made: Fleet) -> None:
    all_on_first(made)
    made.site.publish(2)
    made.roll(2, rings=(0.01, 0.5, 1.0))
    seen: list[int] = []

    def done() -> bool:
        seen.append(sum(each == 2 for each in made.versions().values()))
        return made.rollout.status == "done"

    made.until(done)
    assert set(made.versions().values()) == {2}
    assert 1 in seen, "the first ring is one device"
    assert seen == sorted(seen)
    assert [text.partition(":")[0] for _, text in made.rollout.history] == [
        "passed ring 1 (1%)", "passed ring 2 (50%)", "done"
    ]  # fmt: skip
    made.until(lambda: set(conditions(made).values()) == {"healthy"})
    assert made.agents[DEVICES[0]].predict([{"x": 3.0}]) == {"sum": [6.0]}


@pytest.mark.parametrize("fault", [{"broken": True}, {"wrong": True}])
def test_a_bad_version_is_stopped_in_its_first_ring_and_goes_back(made: Fleet, fault: dict[str, bool]) -> None:
    all_on_first(made)
    made.site.publish(2, **fault)
    made.roll(2, rings=(0.01, 1.0))

    def done() -> bool:
        for each in made.agents.values():
            with suppress(ValueError, EdgeError):
                each.predict([{"x": 1.0}] * 5)
        return made.rollout.status == "stopped"

    made.until(done)
    made.until(lambda: set(made.versions().values()) == {1})
    assert made.rollout.current == 1
    assert "went back from version 2" in made.rollout.why
    failed = [each.report.failed for each in made.store.devices() if each.report is not None and each.report.failed]
    assert len(failed) == 1, "no device but that of the first ring has tried it"
    # A device that was on the bad version runs the old one again after a new start, too.
    for name, agent in made.agents.items():
        agent.close()
        again = Agent(made.folder / "devices" / name, made.setup(name), Sum)
        assert again.version == 1
        again.close()
    made.agents.clear()


def test_a_version_whose_first_rows_fail_is_not_kept_for_want_of_rows(made: Fleet) -> None:
    all_on_first(made, DEVICES[:1])
    made.site.publish(2, wrong=True)
    made.roll(2)
    agent = made.agents[DEVICES[0]]
    made.until(lambda: agent.version == 2)
    with pytest.raises(ValueError, match="the model failed"):
        agent.predict([{"x": 1.0}])
    begun = time.monotonic()
    made.until(lambda: time.monotonic() - begun > 3 * LIMITS.trial_s)
    assert agent.version == 2, "one row of five does not end the trial"
    assert made.rollout.status == "running"
    with pytest.raises(ValueError, match="the model failed"):
        agent.predict([{"x": 1.0}] * 4)
    made.until(lambda: made.rollout.status == "stopped" and agent.version == 1)


def test_a_rollout_that_is_stopped_ends_a_trial_that_waits_for_rows(made: Fleet) -> None:
    all_on_first(made, DEVICES[:1])
    made.site.publish(2, wrong=True)
    made.roll(2)
    agent = made.agents[DEVICES[0]]
    made.until(lambda: agent.version == 2)
    with pytest.raises(ValueError, match="the model failed"):
        agent.predict([{"x": 1.0}])
    made.store.replace(msgspec.structs.replace(made.rollout, status="stopped", why="by hand"))
    made.until(lambda: agent.version == 1)


def test_a_device_that_was_off_updates_when_it_is_back(made: Fleet) -> None:
    all_on_first(made)
    off = made.agents.pop(DEVICES[0])
    off.close()
    made.site.publish(2)
    made.roll(2, gates=type(GATES)(least_healthy=0.9, least_tried=0.5, soak_us=0))
    made.until(lambda: made.rollout.status == "done")
    back = Agent(made.folder / "devices" / DEVICES[0], made.setup(DEVICES[0]), Sum)
    made.agents[DEVICES[0]] = back
    assert back.version == 1
    made.until(lambda: back.version == 2)


@deep
def test_the_broker_may_go_and_come_back(made: Fleet) -> None:
    all_on_first(made, DEVICES[:2])
    made.broker.stop()
    agent = made.agents[DEVICES[0]]

    def noticed() -> bool:
        agent.tick()
        try:
            made.control.tick()
        except Unavailable:
            return not agent._link.connected
        return False

    wait_until(noticed, "both notice that the broker is away")
    assert agent.predict([{"x": 1.0}]) == {"sum": [1.0]}
    made.broker.start()
    made.site.publish(2)
    made.roll(2)

    def done() -> bool:
        for each in made.agents.values():
            each.tick()
        try:
            made.control.tick()
        except Unavailable:
            return False
        return set(made.versions().values()) == {2}

    wait_until(done, "the fleet updates again")


def test_unknown_devices_and_messages_of_others_are_refused_and_counted(made: Fleet, tmp_path: Path) -> None:
    all_on_first(made, DEVICES[:2])
    made.add("stranger", register=False)
    made.until(lambda: ("stranger", "unknown device") in refused(made))
    # Another device under a registered id: its key is another.
    made.agents.pop(DEVICES[1]).close()
    made.add(DEVICES[1], folder=tmp_path / "impostor", register=False)
    made.until(lambda: (DEVICES[1], "signature") in refused(made))
    with pytest.raises(Conflict, match="Device 'depot-1' is registered for 'late-arrival' with the key"):
        made.store.add(Device(id=DEVICES[1], package=NAME, key="0" * 64, added_at=0))


def test_two_devices_with_one_disk_are_told_apart(made: Fleet, tmp_path: Path) -> None:
    all_on_first(made, DEVICES[:1])
    one = made.agents[DEVICES[0]]
    shutil.copytree(made.folder / "devices" / DEVICES[0], tmp_path / "copy", symlinks=True)
    two = Agent(tmp_path / "copy", made.setup(DEVICES[0]), Sum)
    made.agents["copy"] = two

    def told() -> bool:
        return (DEVICES[0], "duplicate id") in refused(made)

    for turn in range(200):
        for each in (one, two) if turn % 2 else (two, one):
            each._link._retry_at = 0.0  # the broker lets one in at a time; they do not wait here
            each.tick()
            each._reported = ""
        made.control.tick(0.05)
        if told():
            break
    assert told()
    assert [each.id for each in made.store.devices() if each.duplicate_at] == [DEVICES[0]]


def test_an_older_desired_state_is_not_accepted(made: Fleet) -> None:
    all_on_first(made, DEVICES[:1])
    made.site.publish(2)
    old = made.store.devices()[0]
    made.roll(2)
    made.until(lambda: set(made.versions().values()) == {2} and made.rollout.status == "done")
    made.messages.send({old.id: desired_message(PROJECT, old, KEY, made.site.now())})  # who controls the broker does it
    agent = made.agents[old.id]
    for _ in range(50):
        agent.tick()
        time.sleep(0.01)
    assert agent.version == 2
    made.until(lambda: "was refused" in problem(made, old.id))


def problem(made: Fleet, device: str) -> str:
    found = made.store.device(device)
    return "" if found is None or found.report is None else found.report.problem


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"project": "another"}, "for the project 'another'"),
        ({"device": "depot-9"}, "for the device 'depot-9'"),
        ({"package": "other"}, "for the package 'other'"),
        ({"version": None}, "lacks a version"),
        ({"key": SigningKey(b"z" * 32)}, "signed by another key"),
    ],
)
def test_a_desired_state_for_another_is_refused(changed: dict[str, object], why: str) -> None:
    key = changed.pop("key", KEY)
    project = changed.pop("project", PROJECT)
    values = {"id": changed.pop("device", "depot-1"), "wanted": changed.pop("version", 3), "package": NAME, **changed}
    device = Device(key="0" * 64, added_at=0, revision=7, **values)  # type: ignore[arg-type]
    message = desired_message(str(project), device, key, 1)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=why):
        read_desired(message, trusted_key=KEY.public, project=PROJECT, device="depot-1", package=NAME)
    for broken in (b"", b"[]", b"{}", json.dumps({"body": 1, "signature": ""}).encode(), b"x" * 100_000):
        with pytest.raises(Refused):
            read_desired(broken, trusted_key=KEY.public, project=PROJECT, device="depot-1", package=NAME)


@pytest.mark.parametrize(("ahead_us", "updates"), [(-3 * 365 * DAY_US, True), (5 * 365 * DAY_US, False)])
def test_a_wrong_clock_is_reported_and_does_not_weaken_updates(made: Fleet, ahead_us: int, updates: bool) -> None:
    made.add(DEVICES[0], now=lambda: made.site.now() + ahead_us)
    made.roll(1)
    agent = made.agents[DEVICES[0]]
    if updates:  # it takes the signed time of its desired state
        made.until(lambda: agent.version == 1)
    else:
        made.until(lambda: "the clock of this device is ahead" in problem(made, DEVICES[0]))
        assert agent.version is None
    made.until(lambda: made.store.devices()[0].clock_wrong)
    assert abs(made.store.devices()[0].skew_us - ahead_us) < 60_000_000


def test_devices_with_client_certificates(tmp_path: Path) -> None:
    with fleet(tmp_path, [DEVICES[0]]) as made, certified(tmp_path / "certified", PROJECT) as broker:
        assert broker.authority is not None
        control, shown = broker.authority.issue("control"), broker.authority.issue(DEVICES[0])
        made.messages.close()
        address = f"mqtts://127.0.0.1:{broker.port}"
        query = f"?ca={broker.authority.certificate}&cert={control.cert}&key={control.key}"
        made.messages = MqttMessages(Url(address + query), PROJECT)
        made.control._messages = made.messages
        both = tmp_path / "both.pem"
        both.write_bytes(Path(made.site.ca).read_bytes() + broker.authority.certificate.read_bytes())
        certificate = (str(shown.cert), str(shown.key))
        made.add(DEVICES[0], broker=address, ca=str(both), certificate=certificate)
        made.roll(1)
        made.until(lambda: made.versions() == {DEVICES[0]: 1})


def test_a_slow_version_is_stopped_by_latency(made: Fleet) -> None:
    all_on_first(made, DEVICES[:2])
    made.site.publish(2, slow=0.02)
    limits = Limits(trial_s=60.0, least_rows=5, most_p99_us=10_000)
    for name in list(made.agents):
        made.agents.pop(name).close()
        made.agents[name] = Agent(made.folder / "devices" / name, made.setup(name, limits=limits), Sum)
    made.roll(2, rings=(0.01, 1.0))

    def done() -> bool:
        for each in made.agents.values():
            each.predict([{"x": 1.0}] * 5)
        return made.rollout.status == "stopped"

    made.until(done)
    assert any(
        "99th percentile of the latency" in str(each.report and each.report.failed) for each in made.store.devices()
    )
