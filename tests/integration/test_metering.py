"""Metering of a machine: real gateways under load, one of which is killed, beside processes of known load."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.fleet import BODY, INFER, Fleet
from kit.waiting import wait_until
from mainspring.core.process_usage import of_tree
from mainspring.cost.statement import IDLE, OTHER, PLATFORM, parts
from mainspring.cost.usage import CAPACITY, ENDPOINT, MACHINE, OWN
from mainspring.operations.cost.machine import MachineMeter
from mainspring.project import Project
from mainspring.serving.plane import uses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
_EVER = 10**18
# Leaves its parent, so that it belongs to nobody here, and works for 0.8 s of processor time.
_STRANGER = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nwhile time.process_time() < 0.8: pass"


def test_a_machine_is_divided_among_endpoints_platform_others_and_idle(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=2, settings={"team": "platform"})
    fleet.publish("1")
    project = fleet.project
    with fleet.up():
        meter, told = MachineMeter(project), project.settings.state / uses.FOLDER
        wait_until(lambda: len(list(told.glob("*.json"))) == 2, "both files")
        earliest = time.monotonic()
        meter.look()
        begun, before = time.monotonic(), cpu_of(fleet)
        sent, replied = ask_for(fleet, 0.8)
        stranger = subprocess.run([sys.executable, "-S", "-c", _STRANGER], check=True)
        assert stranger.returncode == 0
        time.sleep(0.8)
        until_told(project, sent)
        ended, used = time.monotonic(), cpu_of(fleet) - before
        meter.look()
        latest, most = time.monotonic(), cpu_of(fleet) - before

        found = {(each.subject.kind, each.subject.id, each.measure): each for each in project.usage.read(0, _EVER)}
        endpoint = {measure: each.amount for (kind, _, measure), each in found.items() if kind == ENDPOINT}
        assert (endpoint["requests"], endpoint["rows"]) == (sent, 2 * sent)
        assert (endpoint["in"], endpoint["out"]) == (sent * len(BODY), replied)
        subject = found[ENDPOINT, "late-arrival", "requests"].subject
        assert (subject.version, subject.key, subject.inside) == ("1", fleet.key.split("_")[1], True)
        assert {each.subject.teams for each in found.values() if each.subject.kind == ENDPOINT} == {("platform",)}
        # The gateways worked for the requests, but for probes and their log.
        assert 0.5 * used * 1e6 <= endpoint["cpu"] <= most * 1e6 + 0.04e6

        cores = os.cpu_count() or 1
        capacity = found[MACHINE, CAPACITY, "cpu"].amount
        assert cores * (ended - begun) * 1e6 <= capacity <= cores * (latest - earliest) * 1e6
        assert found[MACHINE, OWN, "cpu"].amount >= used * 1e6 - 0.04e6
        divided = amounts(project, "cpu")
        assert sum(divided.values()) == capacity
        assert divided[OTHER] >= 0.7e6
        assert divided[PLATFORM] > 0
        assert divided.get(IDLE, 0) <= capacity - divided["late-arrival"] - 0.7e6
        memory = amounts(project, "memory")
        assert sum(memory.values()) == found[MACHINE, CAPACITY, "memory"].amount

        # A gateway that is killed: its counts until seconds before are kept, and no request is counted twice.
        more, _ = ask_for(fleet, 0.2)
        until_told(project, sent + more)
        fleet.until_replaced("gateway", fleet.kill("gateway"))
        left = {path: path.read_bytes() for path in told.glob("*.json")}
        MachineMeter(project).look()  # that of another worker, after a restart
        for path in left.keys() - set(told.glob("*.json")):  # as if that was killed before it deleted the file
            path.write_bytes(left[path])
        again, _ = ask_for(fleet, 0.2)
        other = MachineMeter(project)

        def requests() -> int:
            other.look()
            [found] = [each.amount for each in project.usage.read(0, _EVER) if each.measure == "requests"]
            return found

        wait_until(lambda: requests() >= sent + more + again, "the counts of the new one")
        assert requests() == sent + more + again
        wait_until(lambda: len(list(told.glob("*.json"))) == 2, "the new one's file")


def ask_for(fleet: Fleet, seconds: float) -> tuple[int, int]:
    """Send requests, and return how many, and the bytes of their replies."""
    count = size = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection = fleet.connect()
        for _ in range(20):
            connection.request("POST", INFER, BODY, {"Authorization": f"Bearer {fleet.key}"})
            reply: http.client.HTTPResponse = connection.getresponse()
            size += len(reply.read())
            assert reply.status == 200
            count += 1
        connection.close()
    return count, size


def amounts(project: Project, measure: str) -> dict[str, int]:
    """Return whose part of the machine is how large."""
    found = parts(project.usage.read(0, _EVER), lambda _: None)
    return {part.subject.id: part.amount for part in found if part.measure == measure}


def until_told(project: Project, requests: int) -> None:
    """Wait until the gateways' files have so many requests together."""
    folder = project.settings.state / uses.FOLDER

    def told() -> bool:
        lanes = [lane.uses for _, counts in uses.told(folder) for lane in counts.lanes]
        return sum(had.requests for each in lanes for had in each.callers.values()) == requests

    wait_until(told, "the counts")


def cpu_of(fleet: Fleet) -> float:
    return sum(found.cpu_s for pid in fleet.pids.values() if (found := of_tree(pid)) is not None)
