"""Launcher's side of a process that starts and watches ranks: what it tells becomes a runner's events.

It tells lines of JSON: `started` and `attempt`, `stage` and `share`, `step`, `lost` with `why`, `size`, `before` and
`printed`. The last is `failed` of a rank, `stopped` by a signal, `refused`, an error that is no rank's, or `ended`
well. Of a process that says none of them, the exit code tells how it went.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from mainspring.core.environment import for_child
from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.own_process import python_path
from mainspring.training.distributed.ends import error_of, error_of_rank
from mainspring.training.distributed.logs import said_last
from mainspring.training.distributed.ports import DECLARED, Event, Job, Lost, Stage, Started, Stepped
from mainspring.training.loop.signals import Interrupted

AGENT_LOG = "agent.log"
_LOOK_S = 0.2
_CLOSE_S = 10.0  # for an agent that has said the last word to give back what it holds


def telling(tell: int) -> Callable[..., None]:
    """Return how an agent tells its launcher, over a file descriptor: the line's entries as arguments."""

    def say(**what: Any) -> None:
        with suppress(BrokenPipeError):
            os.write(tell, json.dumps(what).encode() + b"\n")

    return say


def run_agent(module: str, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
    """Run a job by a process, `python -m MODULE ENTRY FOLDER TELL`, which ends with this one, however this one ends.

    Yields:
        What it tells.

    Raises:
        AgentEnded: It ended without a word on it.
        MainspringError, Interrupted: See `Runner.run`.
    """
    (job.folder / "request.json").write_text(job.request, encoding="utf-8")
    (job.folder / DECLARED).write_text(json.dumps(asdict(job.distributed)), encoding="utf-8")
    hold, held = os.pipe()
    telling, tell = os.pipe()
    command = [sys.executable, "-m", "mainspring.processes.child", str(hold)]
    command += [module, job.entry, str(job.folder), str(tell)]
    log = os.open(job.folder / AGENT_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    agent = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(hold, tell),
        start_new_session=True, env=for_child({"PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}),
    )  # fmt: skip
    for inherited in (hold, tell, log):
        os.close(inherited)
    try:
        if (yield from _heard(agent, telling, stop)):
            with suppress(subprocess.TimeoutExpired):
                agent.wait(_CLOSE_S)
        elif code := agent.wait():
            if number := stop():  # before it hears signals, one ends it without a word
                raise Interrupted(number, "Training was stopped by a signal before its first step.")
            raise AgentEnded(
                f"The agent of the ranks ended with exit code {code}.", fix=f"read {job.folder / AGENT_LOG}."
            )
    finally:
        agent.kill()  # its ranks end with it
        agent.wait()
        os.close(telling)
        os.close(held)


class AgentEnded(Unavailable):
    """The process that watches the ranks ended, and did not say why."""


def _heard(agent: subprocess.Popen[bytes], telling: int, stop: Callable[[], int]) -> Generator[Event, None, bool]:
    """Yield what the agent tells until it ends; return whether it said that all ended well."""
    rest, told = b"", False
    while True:
        if stop() and not told:
            told = True
            agent.terminate()
        if not select.select([telling], [], [], _LOOK_S)[0]:
            if agent.poll() is not None:  # something that a rank started holds the pipe open
                return False
            continue
        piece = os.read(telling, 1 << 16)
        if not piece:
            return False
        *lines, rest = (rest + piece).split(b"\n")
        for line in map(json.loads, lines):
            if "ended" in line:
                return True
            yield from events_of(line, stop)


def events_of(told: Mapping[str, Any], stop: Callable[[], int]) -> Iterator[Event]:
    """Yield the events of a line.

    Raises:
        MainspringError, Interrupted: See `Runner.run`.
    """
    if "started" in told:
        yield Started(told["started"], told["attempt"])
    elif "stage" in told:
        yield Stage(told["stage"], told["share"])
    elif "step" in told:
        yield Stepped(told["step"])
    elif "lost" in told:
        yield Lost(told["lost"], told["why"], told["size"])
        if not told["size"]:
            what = f"Rank {told['lost']} of {told['before']} {told['why']}, and is not replaced any more."
            raise MainspringError(
                f"{what}{said_last(told)}",
                fix="run the same command again: it resumes from the last checkpoint; or give more restarts.",
            )
    elif "failed" in told:
        raise error_of_rank(told["failed"])
    elif "refused" in told:
        raise error_of(told["refused"])
    elif "stopped" in told:
        said = told["what"] or "Training was stopped by a signal."
        raise Interrupted(stop() or told["stopped"], said, preempted=told["preempted"])
