"""Child processes that run jobs for a runner's threads: started when needed, used again, killed when a job must end.

A child ends with this process, however that goes. What it writes is copied to the log of its job, which is bounded.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.environment import for_child
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.settings import Settings
from mainspring.core.time import format_duration
from mainspring.jobs.logs import JobLog
from mainspring.jobs.model import JobHeld, JobStopped, Renewal, StepFailed
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun

if TYPE_CHECKING:
    from mainspring.project import Project

_JOBS = 200  # of one child, which is then replaced: what a job leaves in memory does not add up for ever
_IDLE_S = 60.0
_LOOK_S = 0.2
_END_S = 10.0  # for killed processes to be gone
_KEPT = 1 << 16  # characters of a log in the catalog


class _Child:
    def __init__(self, settings: Settings) -> None:
        hold, self._held = os.pipe()
        hear, asking = os.pipe()
        telling, tell = os.pipe()
        reading, output = os.pipe()
        command = [sys.executable, "-m", "mainspring.processes.child", str(hold), "mainspring.operations.jobs.child"]
        command += ["--project", str(settings.root), "--profile", settings.profile]
        command += ["--hear", str(hear), "--tell", str(tell)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(hold, hear, tell),
            env=for_child({"PYTHONUNBUFFERED": "1"}),
            start_new_session=True,
        )
        for inherited in (hold, hear, tell, output):
            os.close(inherited)
        self._ask, self._telling, self._rest = asking, telling, b""
        self.log = JobLog(reading)
        self.jobs = 0
        self.idle_since = 0.0

    def say(self, **what: Plain) -> None:
        data = json.dumps(what).encode() + b"\n"
        with suppress(BrokenPipeError):  # it died: the answer's end tells
            while data:
                data = data[os.write(self._ask, data) :]

    def heard(self, within_s: float) -> dict[str, Any] | None:
        """Return the next message, `None` if there is none in time.

        Raises:
            EOFError: The process died.
        """
        until = time.monotonic() + within_s
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._telling], [], [], left)[0]:
                return None
            piece = os.read(self._telling, 1 << 20)
            if not piece:
                raise EOFError
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Kill the process and those that the job started, also those that left its group, as Spark's workers do."""
        import psutil

        try:
            started = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            started = []
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        for each in started:
            with suppress(psutil.NoSuchProcess):  # it knows a process of another time by its start
                each.kill()
        psutil.wait_procs(started, timeout=_END_S)
        for end in (self._ask, self._telling, self._held):
            os.close(end)


class Children:
    """Child processes for jobs of a project. Threads may run jobs at once, each in a child of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[_Child] = []
        self._changing = threading.Lock()

    def run(self, run: JobRun, log: Path, **asked: Plain) -> Plain:
        """Run a job in a child process and return its result.

        Args:
            run: The attempt, which records steps and progress, and says when it must end.
            log: File for what the job writes.
            asked: What the child is told: `handler` and `argument`, or `function` and its inputs as `argument`; `name`.

        Raises:
            StepFailed: The attempt failed, took too long, or its process died.
            Invalid: The job refuses its argument or the project's definitions.
            JobStopped: The job is cancelled, another runner has it, or its runner stops. Its process is killed.
        """
        child = self._taken()
        kept = False
        try:
            child.log.to(log)
            child.jobs += 1
            child.say(id=run.id, finished=dict(run.finished), **asked)
            result = self._listen(child, run)
            kept = child.jobs < _JOBS
            return result
        except _Answered as answered:
            kept = child.jobs < _JOBS
            raise answered.error from None
        except EOFError:
            code = child.process.wait()
            told = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise StepFailed(f"Its process {told}.", fix=f"read {log}.") from None
        finally:
            self._returned(child, kept)

    def _listen(self, child: _Child, run: JobRun) -> Plain:
        until = None if run.timeout_us is None else time.monotonic() + run.timeout_us / 1e6
        while True:
            message = child.heard(_LOOK_S if until is None else max(0.0, min(_LOOK_S, until - time.monotonic())))
            if (asked := run.asked()) is not Renewal.HELD:
                raise JobStopped(run.id, asked)
            if message is None:
                if until is not None and time.monotonic() >= until:
                    told = format_duration(run.timeout_us or 0)
                    raise StepFailed(f"It took longer than {told}, and was ended.", fix="give it a longer timeout.")
                continue
            if "done" in message:
                return message["done"]
            if "failed" in message:
                kind = Invalid if message["final"] else StepFailed
                raise _Answered(kind(message["failed"]))
            if "held" in message:
                raise _Answered(JobHeld(run.id, message["held"], again_after_us=message["again_after_us"]))
            if "stopped" in message:
                raise _Answered(JobStopped(run.id, run.asked(), again_after_us=message["again_after_us"]))
            child.say(**_answer(run, message))

    def _taken(self) -> _Child:
        with self._changing:
            child = self._idle.pop() if self._idle else None
        if child is not None and child.process.poll() is not None:
            child.close()
            child = None
        return child or _Child(self._settings)

    def _returned(self, child: _Child, kept: bool) -> None:
        if not kept:
            child.close()
            child.log.to(None)  # with the last that it wrote, before its job is ended
            return
        child.log.to(None)
        child.idle_since = time.monotonic()
        with self._changing:
            self._idle.append(child)

    def sweep(self, idle_s: float = _IDLE_S) -> None:
        """End children that have had nothing to do for a while."""
        with self._changing:
            old = [child for child in self._idle if time.monotonic() - child.idle_since >= idle_s]
            self._idle = [child for child in self._idle if child not in old]
        for child in old:
            child.close()

    def close(self) -> None:
        """End the children that are idle; a busy one ends with its job."""
        self.sweep(0.0)


class _Answered(Exception):
    """The error with which a job ended in a child that can go on."""

    def __init__(self, error: MainspringError) -> None:
        super().__init__(str(error))
        self.error = error


def _answer(run: JobRun, message: Mapping[str, Any]) -> dict[str, Plain]:
    try:
        if "record" in message:
            run.record(message["record"], message["result"])
        elif "progress" in message:
            run.progress(*message["progress"])
    except Invalid as error:
        return {"refused": str(error)}
    return {"asked": run.asked()}


def job_log(state: Path, job: str) -> Path:
    """Return the path of a job's log."""
    return state / "logs" / "jobs" / f"{job}.log"


def keep_log(project: Project, run: JobRun, path: Path) -> None:
    """Let the end of a job's log be stored in the catalog, if that is a server: other machines may ask for it."""
    if project.settings.catalog.scheme in ("postgresql", "postgres"):
        run.keep_log(partial(_last, path))


def _last(path: Path) -> str:
    try:
        text = read_log(path)
    except OSError as error:  # a log must not keep its job from ending
        return f"The log on {socket.gethostname()} cannot be read: {error}"
    return text if len(text) <= _KEPT else f"… the rest is on {socket.gethostname()}\n{text[-_KEPT:]}"


def find_logs(project: Project, paths: Mapping[str, Path]) -> dict[str, str]:
    """Return the logs of jobs by id: from this machine where it has them, else the ends that the catalog has.

    Args:
        paths: Where this machine would have them, by id.
    """
    here = {id: text for id, path in paths.items() if (text := read_log(path))}
    return {**project.jobs.logs([id for id in paths if id not in here]), **here}


def read_log(path: Path) -> str:
    """Return a bounded log with the part that was put aside, empty if there is none."""
    parts = (path.with_suffix(".old.log"), path)
    return "".join(each.read_bytes().decode(errors="replace") for each in parts if each.is_file())
