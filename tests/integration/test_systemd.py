"""Units of systemd: what systemd says of them, and the project under what they allow."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kit.fleet import BODY, INFER, Fleet
from kit.servers import installed
from kit.waiting import free_port, wait_until
from mainspring.core.sandbox import ALL
from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget
from mainspring.deploy.targets.conformance import deployment

MOST_EXPOSED = 1.5  # of 10, by `systemd-analyze security`
# As the units have it: no capability, no new ones, and the system calls of the list.
HELD = """
import ctypes, os, sys
libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
rules = seccomp.seccomp_init(ctypes.c_uint32(0x00050000 | 1))  # EPERM
for name in sys.argv[1].split():
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        assert seccomp.seccomp_rule_add(ctypes.c_void_p(rules), ctypes.c_uint32(0x7FFF0000), number, 0) == 0, name
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert seccomp.seccomp_load(ctypes.c_void_p(rules)) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def units(tmp_path: Path, command: str = "/bin/true", folder: Path | None = None, **changes: object) -> list[Path]:
    """Write units whose paths are there, and return the files."""
    place = str(folder or tmp_path)
    target = SystemdTarget(SystemdOptions(project_folder=place, command=command, user="daemon"), tmp_path)
    (tmp_path / ".mainspring").mkdir(exist_ok=True)
    pieces = target.render(deployment(**changes))
    for piece in pieces:
        target.make(piece)
    return [target.path / piece.name for piece in pieces]


def allowed(unit: Path) -> set[str]:
    """Return the names of the system calls that a unit allows."""
    found, groups = set[str](), re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.M)[0].split()
    while groups:
        told = subprocess.run(
            ["systemd-analyze", "syscall-filter", groups.pop()], capture_output=True, text=True, check=False
        )
        for line in told.stdout.splitlines()[1:]:
            name = line.strip()
            if name.startswith("@"):
                groups.append(name)
            elif name and not name.startswith("#"):
                found.add(name)
    return found


def run(unit: Path, line: str, environment: dict[str, str]) -> None:
    """Run a command of a unit as systemd does."""
    [text] = re.findall(rf"^{line}=(.*)$", unit.read_text(), re.M)
    words = [word.replace("${STATE_DIRECTORY}", environment["STATE_DIRECTORY"]) for word in shlex.split(text)]
    subprocess.run([word.replace("%%", "%") for word in words], env=environment, check=True)


@pytest.fixture(scope="module", autouse=True)
def _systemd() -> None:
    installed("systemd-analyze", wanted=sys.platform == "linux")


@pytest.mark.parametrize("gpus", [0, 1])
def test_systemd_finds_no_fault_and_little_exposed(gpus: int) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:  # systemd takes no folder below /dev, where those of tests may be
        verify(units(Path(folder), gpus=gpus, env={"NOTE": 'a "b" 100% $X \\ é'}))


def verify(found: list[Path]) -> None:
    """Check units with systemd's own program."""
    assert [each.suffix for each in found] == [".service", ".service", ".timer"]
    told = subprocess.run(["systemd-analyze", "verify", *found], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    for each in found[:2]:
        command = [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            f"--threshold={int(10 * MOST_EXPOSED)}",
        ]
        rated = subprocess.run([*command, each], capture_output=True, text=True, check=False)
        assert rated.returncode == 0, rated.stdout[-300:] + rated.stderr


def test_backups_are_made_into_the_states_folder(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project")
    (fleet.root / "mainspring.toml").write_text('name = "fleet"\nprofile = "production"\n[profiles.production]\n')
    fleet.project.close()
    unit = units(tmp_path, str(Path(sys.executable).with_name("mainspring")), fleet.root)[1]
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.txt").write_text("")
    environment = {**os.environ, "STATE_DIRECTORY": str(kept)}
    run(unit, "ExecStart", environment)
    run(unit, "ExecStart", environment)
    assert len([*(kept / "points").iterdir()]) == 2
    assert " --keep 14d" in unit.read_text()
    assert {"keys", "notes.txt", "pieces", "points", "repository.json"} <= {each.name for each in kept.iterdir()}


def test_a_project_runs_under_what_its_unit_allows_and_tells_the_manager(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project")
    (fleet.root / "mainspring.toml").write_text('name = "fleet"\nmodules = ["small"]\n')
    (fleet.root / "small.py").write_text("")
    held = [sys.executable, "-c", HELD, " ".join(allowed(units(tmp_path)[0])), sys.executable]
    confine = "from mainspring.core.sandbox import *; print(*sorted(enforce(Confinement(Policy('required')))))"
    told = subprocess.run([*held, "-c", confine], capture_output=True, text=True, check=False)
    if "libseccomp" in told.stderr:
        pytest.skip(told.stderr[-200:])
    assert (told.stdout.split(), told.returncode) == (sorted(ALL), 0), told.stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        settings = {"gateway": f"127.0.0.1:{fleet.port}", "control": f"127.0.0.1:{free_port()}", "gateway_workers": "2"}
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        environment |= {f"MAINSPRING_{name.upper()}": value for name, value in settings.items()}
        command = [*held, "-m", "mainspring", "up", "--project", str(fleet.root)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                messages = [manager.recv(100)]
                while b"READY=1" not in messages:
                    messages.append(manager.recv(100))

                def answers() -> bool:
                    fleet.publish("1")  # the worker, who knows no endpoint, may have withdrawn it
                    return fleet.ask("POST", INFER, BODY).status == 200

                wait_until(answers, "an answer", every_s=0.2)
                assert {manager.recv(100) for _ in range(2)} == {b"WATCHDOG=1"}
            finally:
                process.send_signal(signal.SIGTERM)
                output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output[-500:]
        manager.settimeout(0)
        rest = [manager.recv(100)]
        while b"STOPPING=1" not in rest:
            rest.append(manager.recv(100))
    wait_until(lambda: not (fleet.project.settings.state / "run.json").exists(), "the end")
