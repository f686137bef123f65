"""Watchdog for processes that are alive but do not respond: stopped, or with a blocked event loop.

Each process is probed over its slot's socket, which its event loop serves. One that is silent for the whole time-out is
killed, and the supervisor restarts it like any that died. On a busy machine silence alone proves nothing: a process
that is runnable, or waits for a disk or for swapped-out memory, and got almost no processor time had no chance to
respond. It is probed again, since a new process would wait as long.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mainspring.serving.plane import slots

_ASK_EVERY_S = 2.0
_COULD_RUN = {"R", "D"}  # runnable, or waiting for a disk
_CHANCE_S = 1.0  # of processor time, enough for an event loop that is not blocked to respond


@dataclass(frozen=True, slots=True)
class Watch:
    """Watchdog of the process in one slot until `ending` is set; runs in its own thread.

    Args:
        place: Folder of the slots' sockets.
        process: Returns the current process of the slot.
        silent_s: Maximum silence in seconds.
        killed: Called after a process was killed.
    """

    place: Path
    slot: int
    process: Callable[[], subprocess.Popen[bytes]]
    silent_s: float
    ending: threading.Event
    killed: Callable[[], None]

    def run(self) -> None:
        while not self.ending.wait(_ASK_EVERY_S):
            process = self.process()
            before_s, asked_s = _used_s(process.pid), time.monotonic()
            # Probed twice: it may have been about to respond when the first probe timed out.
            if all(slots.silent(self.place, self.slot, part * self.silent_s) for part in (0.7, 0.3)):
                # If this process itself was suspended, as with the whole machine, so was the other one.
                away = time.monotonic() - asked_s > 2 * self.silent_s
                lives = process is self.process() and process.poll() is None and not self.ending.is_set()
                if lives and not away and held(process.pid, before_s):
                    process.kill()
                    self.killed()


def held(pid: int, used_s: float) -> bool:
    """Return whether a silent process had the chance to respond.

    All of its threads count: the main one may wait for another, such as for the interpreter lock.

    Args:
        used_s: Processor time (s) that it had used when the silence began.
    """
    states = _states(pid)
    return not states & _COULD_RUN or _used_s(pid) - used_s >= _CHANCE_S


def _states(pid: int) -> set[str]:
    """Return the scheduler states of a process's threads; empty if unknown."""
    found = set()
    with suppress(OSError):  # it has ended, or this is not Linux
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found.add(_fields(thread / "stat")[0])
    return found


def _used_s(pid: int) -> float:
    """Return the processor time of a process in s; 0 if unknown."""
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[str]:
    return path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
