"""The control plane as `mainspring up` starts it: a process on a project, until SIGTERM."""

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kit.depth import deep
from kit.waiting import free_port
from mainspring.console.server import serve
from mainspring.core.errors import Conflict
from mainspring.core.settings import Address
from mainspring.core.time import DAY
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope

MODULE = """
import mainspring as ms

quotes = ms.Source("quotes", schema={"price": ms.Float32}, event_time="seen_at")
"""


@pytest.fixture
def root(tmp_path) -> Path:
    port = free_port()
    (tmp_path / "mainspring.toml").write_text(
        f'name = "tiny"\nmodules = ["tiny_console_project"]\n\n[profiles.local]\ncontrol = "127.0.0.1:{port}"\n'
    )
    (tmp_path / "tiny_console_project.py").write_text(MODULE)
    return tmp_path


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mainspring.console", "--project", str(root)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def ask(url: str, key: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@deep
def test_it_answers_until_sigterm_and_shares_its_port_with_nobody(root) -> None:
    project = open_project(load_settings(root))
    url = project.settings.control.url
    with start(root) as process:
        for line in process.stderr:
            if f"listens on {url}" in line:
                break
        key = issue(
            project.key_store,
            name="test",
            scopes=[KeyScope.VIEW],
            lifetime_us=DAY,
            clock=project.wall,
            pepper=project.pepper,
        )
        assert ask(f"{url}/health/ready") == 200
        assert ask(f"{url}/api/status") == 401
        assert ask(f"{url}/api/status", key) == 200
        assert ask(f"{url}/", key) == 200

        with start(root) as second:
            assert second.wait(30) == 1
            assert "Cannot listen on" in second.stderr.read()

        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    project.close()


def test_its_port_is_shared_with_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address(*other.getsockname())
        with pytest.raises(Conflict, match=f"Cannot listen on {address.host}:{address.port}"):
            asyncio.run(serve(None, address))


def test_a_folder_without_a_project_is_one_clear_line(tmp_path) -> None:
    with start(tmp_path) as process:
        assert process.wait(30) == 1
        said = process.stderr.read()
    assert "mainspring.toml" in said
    assert len(said.strip().splitlines()) == 1
