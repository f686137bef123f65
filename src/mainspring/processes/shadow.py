"""Scoring of shadows, a process of the lowest priority each: `python -m mainspring.processes.shadow --project ROOT`.

It follows the prediction log, so nothing that it does, or fails to do, can slow a caller. The worker starts a process
for each live shadow, and again if it dies; it ends with the worker. A candidate that hangs or crashes takes its own
process along, and no other shadow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mainspring.core.errors import MainspringError
from mainspring.core.settings import LOWEST_PRIORITY
from mainspring.core.time import SECOND, format_duration
from mainspring.delivery.rollout.deciding import CONTROLLER, intervened
from mainspring.delivery.rollout.model import RolloutState
from mainspring.operations.rollout.carrying_out import shadowed
from mainspring.processes.kinds import Kind, last_lines, log_path, spawn
from mainspring.processes.process import log, run
from mainspring.project import Project
from mainspring.project.settings import child_arguments

MODULE = "mainspring.processes.shadow"
HANGS_S = 300  # without an answer to any of the predictions that are scored at once
_EVERY_S = 1.0
_STARTS_AT = 5  # priority of the session until a process has started: at the lowest, a busy machine would not start it
_TRIES = 5
_DEATHS = 3  # in a row at the same predictions, which end a shadow


@dataclass(slots=True)
class _Child:
    """Process of one shadow, and how often it died before it got any further."""

    process: subprocess.Popen[bytes] | None = None
    position: str = ""
    deaths: int = 0


class ShadowProcesses:
    """Keeps a process running for each live shadow. Call it from one thread, which outlives the processes.

    Args:
        hangs_s: Seconds after which a candidate that does not answer is taken to hang.
    """

    def __init__(self, project: Project, *, hangs_s: int = HANGS_S) -> None:
        self._project = project
        self._hangs_s = hangs_s
        self._children: dict[str, _Child] = {}
        self._pipe: tuple[int, int] | None = None

    def keep(self) -> None:
        """Start the processes that are needed and do not run, and end those that are not needed.

        A shadow whose process died several times at the same predictions has failed.
        """
        live = {state.id: state for state in shadowed(self._project)}
        for id in self._children.keys() - live.keys():
            self._end(self._children.pop(id))
        for id, state in live.items():
            self._keep(state, self._children.setdefault(id, _Child()))

    def _keep(self, state: RolloutState, child: _Child) -> None:
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.process = None
            child.deaths = child.deaths + 1 if state.evidence.position == child.position else 1
            log.warning("the shadow process of %s %s", state.endpoint, self._told(code))
            if child.deaths >= _DEATHS:
                why = f"version {state.candidate} answers no predictions: {child.deaths} times its process "
                failed, look = intervened(state, "fail", CONTROLLER, why + self._told(code), self._project.wall.now())
                self._project.rollouts.replace(failed, [look])
                return
        child.position = state.evidence.position
        self._pipe = self._pipe or os.pipe()
        nice = self._project.settings.shadow_nice
        kind = Kind("shadow", MODULE, ("--rollout", state.id, "--hangs", str(self._hangs_s), "--nice", str(nice)))
        child.process = spawn(kind, self._project.settings, self._pipe[0], {})
        lower_session(min(_STARTS_AT, nice), str(child.process.pid))

    def _told(self, code: int) -> str:
        """Return in words how a process ended."""
        if code == -signal.SIGALRM:
            return f"was ended because it gave no answer within {format_duration(self._hangs_s * SECOND)}"
        if code == -signal.SIGKILL:
            return "was killed, as for want of memory"
        if code < 0:
            return f"ended with {signal.Signals(-code).name}"
        return f"ended with {code}: {last_lines(log_path(self._project.settings.state, 'shadow'), 1)}"

    def _end(self, child: _Child) -> None:
        """Kill a process: it holds nothing that a kill would leave half done, and may hang."""
        if child.process is not None:
            child.process.kill()
            child.process.wait()


def lower_session(priority: int, process: str = "self") -> None:
    """Let other sessions go first. Linux may share the processor out by sessions: nice compares within one alone.

    Args:
        priority: As of nice: 0 is usual, 19 the lowest.
    """
    for _ in range(_TRIES):
        try:
            Path("/proc", process, "autogroup").write_text(str(priority))
        except BlockingIOError:  # the kernel allows some of these a second
            time.sleep(0.1)
        except OSError:  # it has none, or a container forbids it
            return
        else:
            return


def lower(priority: int) -> None:
    """Let other processes go first, on the processor and on disks, and stay longest where memory is short.

    Threads that are started later inherit it.

    Args:
        priority: As of nice. At the lowest, every process that is not of the idle class goes first.
    """
    os.nice(priority)
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        lower_session(priority)
        if priority == LOWEST_PRIORITY:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> int:
    """Score a shadow until the process is killed. Return the exit code."""
    parser = child_arguments("processes.shadow")
    parser.add_argument("--rollout", required=True, help="id of the rollout")
    parser.add_argument("--hangs", type=int, default=HANGS_S, help="seconds without an answer that end the process")
    parser.add_argument("--nice", type=int, default=LOWEST_PRIORITY, help="priority, as the setting shadow_nice")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        from mainspring.operations.rollout.shadowing import Shadows

        project.follow_definitions()
        lower(chosen.nice)
        # The kernel ends a process at its alarm, also one whose model never gives the interpreter back.
        shadows = Shadows(project, chosen.rollout, alive=lambda waits: signal.alarm(chosen.hangs if waits else 0))
        stop = threading.Event()
        while not stop.wait(_EVERY_S):
            try:
                shadows.turn()
            except MainspringError as error:
                log.warning("%s", error)
            finally:
                signal.alarm(0)

    return run("shadow", body, chosen)


if __name__ == "__main__":
    sys.exit(main())
