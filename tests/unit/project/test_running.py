"""Where a project is up, which `up --gateway` may have chosen for once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mainspring.operations.doctor import examine
from mainspring.project import Project, open_project
from mainspring.project.running import Running, read_running, where_up, write_running
from mainspring.project.settings import load_settings


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text(
        'name = "shop"\nmodules = []\n[profiles.local]\ncontrol = "127.0.0.1:1"\n'
    )
    return open_project(load_settings(tmp_path, environment={}))


def _up(project: Project, pid: int, profile: str = "local", control: str = "http://127.0.0.1:18081") -> None:
    project.settings.state.mkdir(exist_ok=True)
    write_running(project.settings.state, Running(pid, profile, "https://[::1]:18080", control, {}))


def test_the_addresses_are_those_of_the_supervisor(project: Project) -> None:
    assert where_up(project.settings) == project.settings
    _up(project, os.getpid())
    found = where_up(project.settings)
    assert (found.gateway.url, found.control.url) == ("https://[::1]:18080", "http://127.0.0.1:18081")


def test_a_plane_that_does_not_run_there_is_where_the_settings_say(project: Project) -> None:
    _up(project, os.getpid(), control="")
    found = where_up(project.settings)
    assert (found.gateway.url, found.control) == ("https://[::1]:18080", project.settings.control)
    running = read_running(project.settings.state)
    assert running is not None
    assert running.told == f"process {os.getpid()}, predictions https://[::1]:18080"


def test_what_ended_or_is_of_another_profile_does_not_count(project: Project) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    _up(project, ended.pid)
    assert where_up(project.settings) == project.settings
    _up(project, os.getpid(), "production")
    assert where_up(project.settings) == project.settings


class _Live(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_doctor_asks_the_console_where_it_is(project: Project) -> None:
    with HTTPServer(("127.0.0.1", 0), _Live) as console:
        serving = threading.Thread(target=console.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{console.server_port}"
        _up(project, os.getpid(), control=url)
        try:
            with project.own_locks.hold("up", wait_s=0):
                [finding] = [each for each in examine(project, "processes") if each.check == "console"]
        finally:
            console.shutdown()
            serving.join()
    assert (finding.ok, finding.detail) == (True, f"answers on {url}")
