"""A project that serves one model from a catalog of the test's choice, and its gateway in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit import prefork
from kit.depot import Answer, ask
from kit.serving import bundle, full_request, route
from kit.waiting import free_port, wait_until
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope
from mainspring.serving.model import Arm

INFER = "/v2/models/late-arrival/infer"


class Standing:
    """A project in `root` whose settings are `settings`, as they stand in its file."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.root = root
        self.port = free_port()
        root.mkdir()
        lines = [f'{name} = "{value}"' for name, value in settings.items()]
        (root / "declared_nothing.py").write_text("")
        head = [
            'name = "standing"',
            'modules = ["declared_nothing"]',
            "[profiles.local]",
            f'gateway = "127.0.0.1:{self.port}"',
            f'control = "127.0.0.1:{free_port()}"',
        ]
        (root / "mainspring.toml").write_text("\n".join([*head, *lines, ""]))
        self.project = self.opened()

    def opened(self) -> Project:
        return open_project(load_settings(self.root, environment={}))

    def publish(self, version: str = "1") -> None:
        """Let the endpoint serve a version."""
        made = bundle(float(version) - 1)
        made = seal(made.manifest, made.files, self.project.signing_key)
        self.project.bundles.save(made)
        self.project.routes.publish([route(Arm(version, made.digest))])

    def key(self, name: str = "test") -> str:
        """Return a new key's token."""
        return issue(
            self.project.key_store, name=name, scopes=[KeyScope.PREDICT, KeyScope.SCRAPE], lifetime_us=DAY,
            clock=self.project.wall, pepper=self.project.pepper,
        )  # fmt: skip

    def revoke(self, token: str) -> None:
        try:
            self.project.key_store.revoke(token.split("_")[1], self.project.wall.now())
        except MainspringError:  # a connection that did not survive its server
            self.project.key_store.revoke(token.split("_")[1], self.project.wall.now())

    @contextmanager
    def gateway(self, *, ready: bool = True, environment: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Run the gateway inside the block; with `ready`, from when it serves."""
        with (self.root / "log").open("ab") as log:
            process = subprocess.Popen(
                [prefork.programs() / "python", "-m", "mainspring.processes.gateway", "--project", str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )  # fmt: skip
        try:
            if ready:
                wait_until(lambda: self.ready().status == 200, "the gateway to be ready")
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (self.root / "log").read_text()
        finally:
            process.kill()
            process.wait()

    def ready(self) -> Answer:
        return ask(self.port, "GET", "/v2/health/ready")

    def predict(self, token: str) -> Answer:
        return ask(self.port, "POST", INFER, full_request(), key=token)

    def numbers(self, token: str) -> str:
        return ask(self.port, "GET", "/metrics", key=token).text
