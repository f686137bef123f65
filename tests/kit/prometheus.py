"""Prometheus and Alertmanager on free ports, with the configuration of a test; promtool."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kit.servers import Server, installed, running
from mainspring.core.settings import Url

EVERY = "200ms"  # between two scrapes, and two evaluations


class _Web(Server):
    ready: str

    def answers(self) -> bool:
        try:
            return self.ask(self.ready)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, path: str, **query: str) -> tuple[int, Any]:
        """Return the status, and the JSON if it is some."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        return reply.status, json.loads(content) if content.startswith((b"{", b"[")) else content.decode()

    @property
    def url(self) -> Url:
        return Url(f"http://127.0.0.1:{self.port}")


class Alertmanager(_Web):
    """Keeps alerts; sends them to nobody."""

    programs = ("alertmanager", "prometheus-alertmanager")
    ready = "/-/ready"

    def command(self) -> list[str]:
        config = self.folder / "alertmanager.yml"
        config.write_text("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
        return [
            installed(*self.programs),
            f"--config.file={config}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def alerts(self) -> list[dict[str, str]]:
        """Return the labels of active alerts."""
        return [alert["labels"] for alert in self.ask("/api/v2/alerts")[1]]


class Prometheus(_Web):
    """Scrapes what `scrape_configs` says, five times a second."""

    programs = ("prometheus",)
    ready = "/-/ready"
    files: Mapping[str, str] = {}  # name in its folder -> content
    alertmanager: int | None = None  # port

    def command(self) -> list[str]:
        for name, content in self.files.items():
            (self.folder / name).write_text(content)
        config = self.folder / "prometheus.yml"
        lines = [f"global: {{scrape_interval: {EVERY}, scrape_timeout: {EVERY}, evaluation_interval: {EVERY}}}"]
        lines += ["scrape_config_files: ['*.scrape.yml']", "rule_files: ['*.rules.yml']"]
        if self.alertmanager is not None:
            target = f"127.0.0.1:{self.alertmanager}"
            lines.append(f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}")
        config.write_text("\n".join(lines) + "\n")
        return [
            installed(*self.programs),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series now."""
        _, found = self.ask("/api/v1/query", query=expression)
        return [(each["metric"], float(each["value"][1])) for each in found["data"]["result"]]

    def healthy(self) -> set[str]:
        """Return the jobs whose targets were scraped."""
        _, found = self.ask("/api/v1/targets")
        return {each["labels"]["job"] for each in found["data"]["activeTargets"] if each["health"] == "up"}


@contextmanager
def prometheus(files: Mapping[str, str], alertmanager: Alertmanager | None = None) -> Iterator[Prometheus]:
    """Give a Prometheus with these files in its folder: `*.scrape.yml`, `*.rules.yml` and keys."""

    class Configured(Prometheus):
        pass

    Configured.files = files
    Configured.alertmanager = alertmanager.port if alertmanager else None
    with running(Configured) as server:
        yield server


@contextmanager
def alertmanager() -> Iterator[Alertmanager]:
    with running(Alertmanager) as server:
        yield server


def promtool(*arguments: str | Path, stdin: bytes | None = None) -> str:
    """Return the output of promtool, which must succeed; skip the test where it is not installed."""
    ran = subprocess.run(
        [installed("promtool", wanted=True), *map(str, arguments)], input=stdin, capture_output=True, check=False
    )
    told = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == 0, told
    return told
