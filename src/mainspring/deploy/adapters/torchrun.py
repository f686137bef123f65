"""Training in several processes of this machine, by torchrun's elastic agent."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from mainspring.core.environment import for_child
from mainspring.core.errors import Invalid, MainspringError, Unavailable
from mainspring.core.own_process import python_path
from mainspring.training.distributed.ends import error_of
from mainspring.training.distributed.ports import Event, Job, Lost, Stage, Started, Stepped
from mainspring.training.loop.signals import Interrupted

_LOOK_S = 0.2


class LocalRunner:
    """`Runner` on this machine. The agent and its ranks end with this process, however it ends."""

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        if job.distributed.machines > 1:
            raise Invalid(
                f"Distributed has machines={job.distributed.machines}; processes are started on this machine alone.",
                fix="start torchrun on each machine, with a script that calls ms.fit_torch.",
            )
        (job.folder / "request.json").write_text(job.request, encoding="utf-8")
        (job.folder / "distributed.json").write_text(json.dumps(asdict(job.distributed)), encoding="utf-8")
        hold, held = os.pipe()
        telling, tell = os.pipe()
        command = [sys.executable, "-m", "mainspring.processes.child", str(hold)]
        command += ["mainspring.training.distributed.agent", job.entry, str(job.folder), str(tell)]
        log = os.open(job.folder / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(hold, tell),
            start_new_session=True, env=for_child({"PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}),
        )  # fmt: skip
        for inherited in (hold, tell, log):
            os.close(inherited)
        try:
            yield from _heard(agent, telling, stop)
            code = agent.wait()
            if code:
                raise Unavailable(
                    f"The agent of the ranks ended with exit code {code}.", fix=f"read {job.folder}/agent.log."
                )
        finally:
            agent.kill()  # its ranks end with it
            agent.wait()
            os.close(telling)
            os.close(held)


def _heard(agent: subprocess.Popen[bytes], telling: int, stop: Callable[[], int]) -> Iterator[Event]:
    """Yield what the agent tells until it ends.

    Raises:
        MainspringError, Interrupted: See `Runner.run`.
    """
    rest, told = b"", False
    while True:
        if stop() and not told:
            told = True
            agent.terminate()
        if not select.select([telling], [], [], _LOOK_S)[0]:
            if agent.poll() is not None:  # something that a rank started holds the pipe open
                return
            continue
        piece = os.read(telling, 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield from _event(json.loads(line), stop)


def _event(told: dict[str, Any], stop: Callable[[], int]) -> Iterator[Event]:
    if "started" in told:
        yield Started(told["started"], told["attempt"])
    elif "stage" in told:
        yield Stage(told["stage"], told["share"])
    elif "step" in told:
        yield Stepped(told["step"])
    elif "lost" in told:
        yield Lost(told["lost"], told["why"], told["size"])
        if not told["size"]:
            raise MainspringError(
                f"Rank {told['lost']} of {told['before']} {told['why']}, and is not replaced any more.",
                fix="run the same command again: it resumes from the last checkpoint; or give more restarts.",
            )
    elif "failed" in told:
        raise error_of(told["failed"])
    elif "stopped" in told:
        said = told["what"] or "Training was stopped by a signal."
        raise Interrupted(stop() or told["stopped"], said, preempted=told["preempted"])
