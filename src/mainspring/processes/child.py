"""Run a module as a child that never outlives its supervisor.

`python -m mainspring.processes.child FD MODULE ARGUMENT...`

Two mechanisms detect its death, since each has a gap: the kernel's parent-death signal (Linux; set after the fork), and
the end of a pipe whose other end only the supervisor holds.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading

from mainspring.core.ending import exits_beside_threads

_PR_SET_PDEATHSIG = 1


def die_with_supervisor(pipe: int) -> None:
    """End this process at once when the supervisor is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_wait, args=(pipe,), name="supervisor-watch", daemon=True).start()


def _wait(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    pipe, module, *arguments = sys.argv[1:]
    die_with_supervisor(int(pipe))
    sys.argv = [module, *arguments]
    with exits_beside_threads():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
