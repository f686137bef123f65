"""Which process is which: a pid alone may have been given to another by now."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOST, BOOT, PID, STARTED = "mainspring.host", "mainspring.boot", "mainspring.pid", "mainspring.process_started"
USER = "mainspring.user"  # whose process it was, by the operating system's word
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def process_tags(pid: int | None = None) -> dict[str, str]:
    """Return tags that name a process (this one by default) so that `is_dead` can tell it from every other."""
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), BOOT: _boot(), PID: str(pid), STARTED: _started(pid) or "", USER: local_user()}


def local_user() -> str:
    """Return who runs this process, for the records: asked of the kernel, as anybody can set an environment."""
    try:
        return f"local:{pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:  # in a container, say
        return f"local:{os.geteuid()}"


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether the process that `tags` name has ended. One on another host is taken to live."""
    if PID not in tags or tags.get(HOST) != socket.gethostname():
        return False
    if tags.get(BOOT) != _boot():
        return True
    return _started(int(tags[PID])) != tags.get(STARTED)


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _started(pid: int) -> str | None:
    """When the process started, in a form only good for comparing; `None` where there is none (a zombie is none)."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]  # proc(5): the state and starttime
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return shown.stdout.strip() or None
