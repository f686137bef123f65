"""The gateway as a process: SIGTERM answers what is in flight, kill -9 loses no prediction that was answered."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mainspring.ledger.adapters.unread import unread
from serving_kit import full_request, keyed_request

PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from serving_kit import Kit
from mainspring.core.settings import Address
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.serving.server import serve

kit = Kit(log=SegmentLog(Path(sys.argv[2])))
kit.publish("1")
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
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20))


@contextmanager
def gateway(ledger: Path) -> Iterator[Process]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    popen = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, TESTS, str(ledger), str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        process = Process(popen, port, popen.stdout.readline().strip())
        until_ready(process)
        yield process
    finally:
        popen.kill()
        popen.communicate()


def until_ready(process: Process) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with process.connect() as connection:
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().read() == b'{"ready":true}':
                    return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the gateway did not become ready")


def test_sigterm_answers_what_is_in_flight_and_ends(tmp_path: Path) -> None:
    with gateway(tmp_path) as process:
        body = json.dumps(full_request()).encode()
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {process.key}\r\n"
        with socket.create_connection(("127.0.0.1", process.port), timeout=20) as begun:
            begun.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:40])
            time.sleep(0.2)  # the request is at the gateway, and waits for the rest of its body
            process.popen.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            begun.sendall(body[40:])
            answer = begun.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert process.popen.wait(20) == 0
        assert process.popen.stdout.read().split() == ["ended"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", process.port), timeout=5)
    assert len(list(unread(tmp_path))) == 2


def test_a_killed_gateway_has_logged_every_prediction_that_it_answered(tmp_path: Path) -> None:
    chance = random.Random(5)
    told: set[str] = set()
    for _ in range(2):
        with gateway(tmp_path) as process:

            def ask(process: Process = process) -> None:
                with process.connect() as connection:
                    try:
                        while True:
                            status, body = process.post(connection, keyed_request("AA", "UA"))
                            assert status == 200
                            told.update(body["parameters"]["prediction_ids"])
                    except (OSError, http.client.HTTPException):
                        return

            asking = [threading.Thread(target=ask) for _ in range(3)]
            for thread in asking:
                thread.start()
            time.sleep(chance.uniform(0.2, 0.6))
            process.popen.kill()
            for thread in asking:
                thread.join()
    logged = [each.id for each in unread(tmp_path)]
    assert len(logged) == len(set(logged))
    assert len(told) > 20
    assert told <= set(logged)
    assert len(set(logged) - told) <= 2 * 3 * 2  # what was on its way to three callers, twice
