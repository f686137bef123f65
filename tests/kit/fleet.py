"""Gateway processes under a real supervisor, in a project of their own, with bundles that tests publish."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit import prefork
from kit.load import Load
from kit.serving import FEATURES, bundle, expected, full_request, model, route
from kit.waiting import free_port, wait_until
from mainspring.core.time import HOUR
from mainspring.processes.supervisor import Supervisor
from mainspring.project import Project, open_project
from mainspring.project.running import read_running
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope
from mainspring.serving.model import Arm

_PYTHON = sys.executable
INFER = "/v2/models/late-arrival/infer"
BODY = json.dumps(full_request()).encode()
COLUMNS = {name: values for name, (_, values) in FEATURES.items()}
_PREDICTIONS = re.compile(r'^mainspring_predictions_total\{slot="(\d+)",endpoint="late-arrival"\} (\S+)', re.M)


def answer_of(version: str) -> list[float]:
    """Return what a published version answers to `BODY`."""
    return expected(COLUMNS, float(version) - 1)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Fleet:
    """A project in `root` whose gateway has several processes. Leave out what `settings` names differently.

    Where `forked`, a process is forked (`kit.prefork`), and ends a moment after the one that the supervisor knows: not
    for tests that suspend one, or look at what a killed one left.
    """

    root: Path
    workers: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    forked: bool = False

    def __post_init__(self) -> None:
        self.port = free_port()
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "mainspring.toml").write_text('name = "fleet"\n')
        self.project: Project = open_project(load_settings(self.root, None, self._settings, environment={}))
        self.key = issue(
            self.project.key_store,
            name="test",
            scopes=(KeyScope.PREDICT, KeyScope.SCRAPE),
            lifetime_us=HOUR,
            clock=self.project.wall,
            pepper=self.project.pepper,
        )
        self._digests: dict[str, str] = {}

    @property
    def _settings(self) -> dict[str, Any]:
        return {"gateway": f"127.0.0.1:{self.port}", "gateway_workers": self.workers, **self.settings}

    def publish(self, *versions: str, weights: Mapping[str, float] | None = None, **changes: Any) -> int:
        """Put versions behind the endpoint and return the table's revision; version n answers with the bias n - 1.

        `changes` are of the route.
        """
        arms = [Arm(each, self._digest(each), (weights or {}).get(each, 1.0)) for each in versions]
        return self.project.routes.publish([msgspec.structs.replace(route(*arms), **changes)])

    def _digest(self, version: str) -> str:
        if version not in self._digests:
            bias = float(version) - 1
            made = bundle(bias, model_onnx=model(bias))
            sealed = seal(made.manifest, made.files, self.project.signing_key)
            self.project.bundles.save(sealed)
            self._digests[version] = sealed.digest
        return self._digests[version]

    @contextmanager
    def up(self) -> Iterator[Supervisor]:
        """Keep the gateway's processes up inside the block."""
        environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in self._settings.items()}
        supervisor = Supervisor(self.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway",))
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(sys, "executable", str(prefork.programs() / "python") if self.forked else _PYTHON)
            with supervisor.running(ready_within_s=60.0):
                yield supervisor

    @property
    def pids(self) -> dict[str, int]:
        running = read_running(self.project.settings.state)
        return {} if running is None else dict(running.children)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid = self.pids[name]
        os.kill(pid, number)
        return pid

    def until_replaced(self, name: str, old: int) -> None:
        wait_until(lambda: self.pids.get(name, old) != old, f"a new {name}")

    def connect(self, timeout: float = 60.0) -> http.client.HTTPConnection:
        if self.context is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send one request over a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.key}", **headers})
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def raw(self, head: bytes, rest: bytes = b"") -> socket.socket:
        """Return a connection over which this was sent; after whole lines of `head` comes what lets a request in."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        entry = f"Host: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n".encode()
        found.sendall(head + (entry if head.endswith(b"\n") else b"") + rest)
        return found

    def scrape(self) -> str:
        reply = self.ask("GET", "/metrics")
        assert reply.status == 200, reply
        return reply.body.decode()

    def serving(self) -> dict[str, set[str]]:
        """Return which versions each slot serves, as a scrape says."""
        found: dict[str, set[str]] = {}
        for slot, version in re.findall(
            r'^mainspring_served_version\{slot="(\d+)",endpoint="late-arrival",version="([^"]+)"\} 1',
            self.scrape(),
            re.M,
        ):
            found.setdefault(slot, set()).add(version)
        return found

    def answered(self) -> dict[str, float]:
        """Return how many rows each slot predicted."""
        return {slot: float(count) for slot, count in _PREDICTIONS.findall(self.scrape())}

    def load(self, threads: int = 4) -> Load:
        """Return callers that send `BODY`. A reply must be the answer of the version that it names, or a swap is not
        atomic."""
        answers: dict[str, list[float]] = {}

        def right(document: Any) -> bool:
            version, found = document["model_version"], document["outputs"][0]["data"]
            wanted = answers.setdefault(version, answer_of(version))
            return all(abs(a - b) < 1e-5 for a, b in zip(found, wanted, strict=True))

        return Load(self.connect, INFER, self.key, lambda number: BODY, right=right, threads=threads)

    def until_all_serve(self, *versions: str) -> None:
        wanted = {str(slot): set(versions) for slot in range(self.workers)}
        wait_until(lambda: self.serving() == wanted, f"every process to serve {versions}")
