"""A private gateway beside the serving one, for its caller alone. Its log is discarded, its traces not exported."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mainspring.core.environment import FOR_SERVING, for_child
from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.process_usage import tree
from mainspring.core.settings import Address
from mainspring.operations.plane_connection import connect
from mainspring.project import Project

_START_S = 60.0


@contextmanager
def gateway_apart(project: Project) -> Iterator[tuple[Address, bool, int]]:
    """Run a private gateway; yield its address, whether the caller has a core of its own, and the process's number."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = Address("127.0.0.1", port)
    cores = _cores()
    settings = project.settings
    # It ends with this process, for whatever reason: see `processes.child`.
    with tempfile.TemporaryDirectory(prefix="mainspring-bench-") as folder, _pipe() as lifeline:
        log = Path(folder) / "gateway.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [
                    sys.executable, "-m", "mainspring.processes.child", str(lifeline),
                    "mainspring.processes.gateway",
                    "--project", str(settings.root), "--profile", settings.profile, "--apart", f"{folder}/slots",
                ],
                env=for_child({
                    "MAINSPRING_GATEWAY": f"127.0.0.1:{port}", "MAINSPRING_LEDGER": f"{folder}/ledger",
                    "MAINSPRING_TRACES": "",  # of invented requests
                }, FOR_SERVING),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(lifeline,),
            )  # fmt: skip
        if len(cores) > 1:
            os.sched_setaffinity(child.pid, cores[:-1])
            os.sched_setaffinity(0, cores[-1:])
        try:
            _await_ready(address, child, log)
            yield address, len(cores) > 1, child.pid
        finally:
            if len(cores) > 1:
                os.sched_setaffinity(0, cores)
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def processor_s(pid: int) -> tuple[float, float]:
    """Return the processor time of a process, and of it and those below it that still run, seconds."""

    def spent(pid: int) -> float:
        with suppress(OSError, AttributeError):  # finer than hundredths of a second: clock_getcpuclockid(3)
            return time.clock_gettime(~pid << 3 | 2)
        return 0.0

    own, *others = map(spent, tree(pid))
    return own, own + sum(others)


def get(address: Address, path: str, token: str) -> bytes:
    """Return the response of a path; see `call`."""
    return call(address, "GET", path, token, None)


def call(address: Address, method: str, path: str, token: str, body: bytes | None) -> bytes:
    """Return the response to one request.

    Raises:
        Unavailable: There is no response within 10 s, or an error, whose text is in the message.
    """
    connection = connect(address, None, timeout_s=10.0)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the gateway does not respond: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise Unavailable(f"it answers {response.status}: {content.decode(errors='replace')[:300]}")
    return content


@contextmanager
def _pipe() -> Iterator[int]:
    """Context with the read end of a pipe whose other end only this process holds."""
    ends = os.pipe()
    try:
        yield ends[0]
    finally:
        for end in ends:
            os.close(end)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _await_ready(address: Address, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    reason = "it did not respond"
    while time.monotonic() < deadline:
        if child.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
            raise Unavailable(f"The gateway under test ended at once: {lines[-1]}")
        try:
            get(address, "/v2/health/ready", "")
            return
        except MainspringError as error:
            reason = error.what
        time.sleep(0.05)
    raise Unavailable(f"The gateway under test is not ready after {_START_S:g} s: {reason}")
