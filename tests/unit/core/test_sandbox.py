"""A confined process can compute, and reach nothing."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kit.hostile import ACTS
from mainspring.core.sandbox import ALL, Confinement, Policy, available, enforce, expanded

pytestmark = pytest.mark.skipif(available() != ALL, reason="this kernel has no Landlock or no seccomp")

CHILD = """
import json, sys
from pathlib import Path
from kit.hostile import ACTS, MILD, Place, attempts
from mainspring.core.sandbox import Confinement, Policy, enforce
secret, port, outside, other, root, confined = json.loads(sys.argv[1])
wanted = Confinement(Policy(), (root,), (str(Path(secret).parent),))
in_force = sorted(enforce(wanted)) if confined else []
import numpy as np
worked = {
    "computes": float(np.linalg.inv(np.eye(200)).sum()),
    "reads": Path(root, "word.txt").read_text(),
    "imports": __import__("decimal").Decimal(1) / 8 == __import__("fractions").Fraction(1, 8),
    "random": len(open("/dev/urandom", "rb").read(3)),
    "own": open("/proc/self/statm").read() != "",
}
print(json.dumps([in_force, worked, attempts(Place(secret, port, outside, other), ACTS if confined else MILD)]))
"""


@pytest.mark.parametrize("confined", [True, False])
def test_a_hostile_model_gets_nothing(tmp_path: Path, confined: bool) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    secret = root / ".mainspring" / "keys" / "signing"
    secret.parent.mkdir(parents=True)
    outside.mkdir()
    secret.write_text("the key")
    (root / "word.txt").write_text("a word")
    mode = secret.stat().st_mode & 0o777
    other = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            service.bind(str(outside / "service"))
            asked = (str(secret), server.getsockname()[1], str(outside), other.pid, str(root), confined)
            done = subprocess.run(
                [sys.executable, "-c", CHILD, json.dumps(asked)], capture_output=True, text=True, timeout=60,
                check=False, env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(outside)},
            )  # fmt: skip
            if confined:
                with pytest.raises(TimeoutError):
                    server.accept()
        assert done.returncode == 0, done.stderr
        in_force, worked, got = json.loads(done.stdout)
        assert worked == {"computes": 200.0, "reads": "a word", "imports": True, "random": 3, "own": True}
        if not confined:  # so each could do harm
            assert [name for name, what in got.items() if not what] == []
            return
        assert in_force == sorted(ALL)
        assert got == dict.fromkeys(ACTS, "")
        assert other.poll() is None
        assert secret.read_text() == "the key"
        assert [each.name for each in outside.iterdir()] == ["service"]
        assert secret.stat().st_mode & 0o777 == mode
    finally:
        service.close()
        other.kill()
        other.wait()


def test_a_thread_that_is_no_pythons_counts() -> None:
    code = (
        "import ctypes, os; made = ctypes.c_ulong(); libc = ctypes.CDLL(None)\n"
        "assert not libc.pthread_create(ctypes.byref(made), None, ctypes.cast(libc.sleep, ctypes.c_void_p), 60)\n"
        "from mainspring.core.sandbox import Confinement, Policy, enforce\n"
        "try:\n    enforce(Confinement(Policy()))\nexcept RuntimeError as error:\n    print(error, flush=True)\n"
        "os._exit(0)"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert "second thread" in done.stdout


def test_a_link_that_leads_anywhere_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "root" / "state").mkdir(parents=True)
    (tmp_path / "root" / "code").mkdir()
    (tmp_path / "root" / "current").symlink_to(".")
    (tmp_path / "root" / "everything").symlink_to("/")
    found = [*expanded([tmp_path / "root"], [tmp_path / "root" / "state"])]
    assert found == [tmp_path / "root" / "code"]


def test_a_process_with_threads_is_not_confined() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="second thread"):
            enforce(Confinement(Policy()))
    finally:
        stop.set()
        thread.join()
