"""A process that imports once, and forks those that carry out rollouts and are killed (`rollout_victim.py`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kit.waiting import wait_until

_VICTIM = Path(__file__).parent / "rollout_victim.py"


@dataclass
class Nursery:
    """Forks controllers and workers; ends those that are left."""

    process: subprocess.Popen[str]
    forked: list[int] = field(default_factory=list)

    def fork(self, root: Path, point: str = "", role: str = "controller", *, suspended: str = "") -> int:
        """Start a process that is killed when it comes to a point; return its number.

        Args:
            suspended: A point before that, where it stops until it is told to go on.
        """
        points = [(suspended, signal.SIGSTOP)] * bool(suspended) + [(point, signal.SIGKILL)] * bool(point)
        asked = {"root": str(root), "role": role, "points": points}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        self.forked.append(int(self.process.stdout.readline()))
        return self.forked[-1]

    def until_gone(self, *pids: int) -> None:
        wait_until(lambda: not any(map(there, pids)), f"the end of {pids}")

    def until_stopped(self, pid: int) -> None:
        wait_until(lambda: " T " in Path(f"/proc/{pid}/stat").read_text(), f"{pid} to be suspended")

    def wake(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def kill(self, *pids: int) -> None:
        """End processes wherever they are."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.until_gone(*pids)

    def close(self) -> None:
        # Numbers are given again: one that ended long ago may be a process of others by now.
        self.kill(*(pid for pid in self.forked if parent_of(pid) == self.process.pid))
        self.process.kill()
        self.process.communicate()


def parent_of(pid: int) -> int:
    """Return the number of a process's parent; 0 if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def there(pid: int) -> bool:
    """Return whether a process has not ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_VICTIM.parents[1]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(_VICTIM)], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    made = Nursery(process)
    yield made
    made.close()
