"""The gateway as a process: SIGTERM answers what is in flight; what kill -9 loses is what its endpoint allows."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.depot import ask, half_sent, refuses
from kit.serving import full_request, keyed_request
from kit.waiting import free_port, wait_until
from mainspring.ledger.adapters.unread import unread

PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from msgspec.structs import replace
from kit.serving import Kit
from mainspring.ledger.model import Log
from mainspring.core.settings import Address
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.serving.http.server import serve

kit = Kit(log=SegmentLog(Path(sys.argv[2])))
kit.publish("1")
kit.routes.publish([replace(each, log=Log(sync=sys.argv[4] == "sync")) for each in kit.routes.current().values()])
print(kit.key(), flush=True)
asyncio.run(serve(kit.gateway(), Address("127.0.0.1", int(sys.argv[3]))))
kit.log.close()
print("ended", flush=True)
"""
INFER = "/v2/models/late-arrival/infer"
TESTS = str(Path(__file__).parent.parent)


@dataclass
class Process:
    popen: subprocess.Popen[str]
    port: int
    key: str

    def post(self, connection: http.client.HTTPConnection, body: object) -> tuple[int, dict]:
        headers = {"Authorization": self.key}
        connection.request("POST", INFER, json.dumps(body), headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def connect(self) -> closing[http.client.HTTPConnection]:
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=90))


@contextmanager
def gateway(ledger: Path, log: str = "") -> Iterator[Process]:
    port = free_port()
    popen = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, TESTS, str(ledger), str(port), log], stdout=subprocess.PIPE, text=True
    )
    try:
        process = Process(popen, port, popen.stdout.readline().strip())
        until_ready(process)
        yield process
    finally:
        popen.kill()
        popen.communicate()


def until_ready(process: Process) -> None:
    wait_until(lambda: ask(process.port, "GET", "/v2/health/ready").text == '{"ready":true}', "the gateway to be ready")


def test_sigterm_answers_what_is_in_flight_and_ends(tmp_path: Path) -> None:
    with gateway(tmp_path) as process:
        body = json.dumps(full_request()).encode()
        with half_sent(process.port, INFER, body, process.key) as (begun, rest):
            process.popen.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(process.port), "the end to begin")
            begun.sendall(rest)
            answer = begun.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert process.popen.wait(90) == 0
        assert process.popen.stdout.read().split() == ["ended"]
        assert refuses(process.port)
    assert len(list(unread(tmp_path))) == 2


def killed(ledger: Path, log: str, chance: random.Random) -> list[list[str]]:
    """Kill a gateway amid requests; return the ids that each of three callers was told, in order."""
    with gateway(ledger, log) as process:
        told: list[list[str]] = [[], [], []]

        def ask(mine: list[str]) -> None:
            with process.connect() as connection:
                try:
                    while True:
                        status, body = process.post(connection, keyed_request("AA", "UA"))
                        assert status == 200
                        mine += body["parameters"]["prediction_ids"]
                except (OSError, http.client.HTTPException):
                    return

        asking = [threading.Thread(target=ask, args=(mine,)) for mine in told]
        for thread in asking:
            thread.start()
        wait_until(lambda: min(map(len, told)) >= 20, "20 answers to each caller")
        time.sleep(chance.uniform(0.1, 0.4))
        process.popen.kill()
        for thread in asking:
            thread.join()
    return told


def test_a_killed_gateway_has_logged_every_prediction_that_it_answered_in_sync(tmp_path: Path) -> None:
    chance, told = random.Random(5), set()
    for _ in range(2):
        told.update(each for mine in killed(tmp_path, "sync", chance) for each in mine)
    logged = [each.id for each in unread(tmp_path)]
    assert len(logged) == len(set(logged))
    assert told <= set(logged)
    assert len(set(logged) - told) <= 2 * 3 * 2  # what was on its way to three callers, twice


def test_a_killed_gateway_that_does_not_wait_for_its_log_loses_only_its_last_answers(tmp_path: Path) -> None:
    chance = random.Random(6)
    for _ in range(2):
        told = killed(tmp_path, "", chance)
        logged = [each.id for each in unread(tmp_path)]
        assert len(logged) == len(set(logged))
        for mine in told:
            kept = [each for each in mine if each in set(logged)]
            assert kept == mine[: len(kept)]
