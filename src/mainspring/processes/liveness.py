"""A watch over processes that live and do not answer: stopped, or with an event loop that something holds.

Each is asked over its slot's socket, which its event loop serves. One that is silent for the whole time-out is killed,
and the supervisor starts it again as any that died. On a busy machine silence alone is no proof: a process that could
run, or waits for a disk or for memory that was swapped out, and got next to no processor time has not had its chance,
and is asked again. Another in its place would wait as long.
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
_CHANCE_S = 1.0  # of processor time, in which an event loop that is not held would have answered


@dataclass(frozen=True, slots=True)
class Watch:
    """Watches the process in one slot until `ending` is set; run it in a thread of its own.

    Args:
        place: Where the slots' sockets are.
        process: Returns the process that has the slot now.
        silent_s: How long it may be silent.
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
            # Asked twice: it may have been about to answer when the first question was given up.
            if all(slots.silent(self.place, self.slot, part * self.silent_s) for part in (0.7, 0.3)):
                # Where this process itself was away, as in a suspended machine, the other one was as well.
                away = time.monotonic() - asked_s > 2 * self.silent_s
                lives = process is self.process() and process.poll() is None and not self.ending.is_set()
                if lives and not away and held(process.pid, before_s):
                    process.kill()
                    self.killed()


def held(pid: int, used_s: float) -> bool:
    """Return whether a silent process had its chance to answer.

    All of its threads count: the main one may wait for what another has, such as the interpreter's lock.

    Args:
        used_s: The processor time that it had used, in s, when the silence began.
    """
    states = _states(pid)
    return not states & _COULD_RUN or _used_s(pid) - used_s >= _CHANCE_S


def _states(pid: int) -> set[str]:
    """Return the scheduler's states of a process's threads; none where nothing tells."""
    found = set()
    with suppress(OSError):  # it has ended, or the platform is another
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found.add(_fields(thread / "stat")[0])
    return found


def _used_s(pid: int) -> float:
    """Return the processor time of a process, in s; 0 where nothing tells."""
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[str]:
    return path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
