"""Child process that runs jobs for `operations.jobs.children`, one after the other, over a protocol of JSON lines.

`python -m mainspring.operations.jobs.child --project ROOT --profile NAME --hear FD --tell FD`

The parent holds the lease and records what happens: this process reaches the job's record only through it, and is
killed when the job must end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, TypeVar, cast

from mainspring.core.errors import Invalid, MainspringError
from mainspring.cost.paying import Payers, paid_by
from mainspring.cost.usage import STEP, Subject
from mainspring.jobs.model import JobHeld, JobStopped, Renewal
from mainspring.jobs.pipelines.graph import Node
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.operations.jobs.handlers import handler, put_off
from mainspring.operations.pipelines.calling import call_step
from mainspring.project import Project, open_project
from mainspring.project.settings import child_arguments, load_settings
from mainspring.registry.processes import started_by

T = TypeVar("T")


class Line:
    """The connection to the parent: a message, and an answer to each."""

    def __init__(self, hear: IO[str], tell: IO[str]) -> None:
        self._hear, self._tell = hear, tell

    def told(self) -> Any:
        """Return the parent's next message, `None` at the end."""
        line = self._hear.readline()
        return json.loads(line) if line else None

    def tell(self, **what: Plain) -> None:
        self._tell.write(json.dumps(what) + "\n")
        self._tell.flush()

    def ask(self, **what: Plain) -> Any:
        self.tell(**what)
        answer = self.told()
        if answer is None:
            os._exit(1)  # the parent is gone
        return answer


class ChildRun:
    """One attempt at a job, as its function sees it: `JobRun` for the child's side."""

    def __init__(
        self,
        line: Line,
        id: str,
        argument: Plain,
        finished: Mapping[str, Plain],
        started_by: str = "",
        team: str = "",
    ) -> None:
        self._line = line
        self.id = id
        self.argument = argument
        self.started_by = started_by
        self.team = team
        self._finished = dict(finished)
        self._begun: Counter[str] = Counter()

    def step(self, name: str, do: Callable[[], T]) -> T:
        """See `JobRun.step`."""
        self._begun[name] += 1
        count = self._begun[name]
        known = name if count == 1 else f"{name} #{count}"
        if known not in self._finished:
            self.check()
            result = decoded(encoded(do(), f"The result of the step {known}"))
            self._ask(record=known, result=result)
            self._finished[known] = result
        return cast("T", self._finished[known])

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """See `JobRun.progress`."""
        self._ask(progress=[done, total, note])

    def check(self) -> None:
        """See `JobRun.check`."""
        self._ask(check=True)

    def _ask(self, **what: Plain) -> None:
        answer = self._line.ask(**what)
        if "refused" in answer:
            raise Invalid(answer["refused"])
        if answer["asked"] != Renewal.HELD:
            raise JobStopped(self.id, None if answer["asked"] is None else Renewal(answer["asked"]))


def run_job(project: Project, line: Line, asked: Mapping[str, Any]) -> None:
    """Run one job and tell the parent how it ended, after all that it wrote: the parent closes its log then."""
    run = ChildRun(line, asked["id"], asked["argument"], asked["finished"], asked["by"], asked.get("team", ""))
    end: dict[str, Plain]
    try:
        if "function" in asked:
            node = Node(asked["step"], function=asked["function"], engine=asked["engine"])
            subject = Subject(STEP, f"{asked['pipeline']}/{asked['step'].partition('[')[0]}", key=asked["by"])
            payers = Payers(tuple(asked["teams"]), asked["teams_why"])
            with started_by(asked["by"]), paid_by(payers), project.metering.of(subject), put_off(run.id):
                result = call_step(project, node, asked["argument"], run)
        else:
            result = handler(project, asked["handler"])(run)  # type: ignore[arg-type]
        end = {"done": json.loads(encoded(result, f"The result of {asked['name']}"))}
    except JobHeld as held:
        end = {"held": held.note, "again_after_us": held.again_after_us}
    except JobStopped as stopped:
        end = {"stopped": True, "again_after_us": stopped.again_after_us}
    except MainspringError as error:
        sys.stderr.write(f"{error}\n")
        end = {"failed": str(error), "final": isinstance(error, Invalid)}
    except BaseException as error:
        traceback.print_exc()
        end = {"failed": f"{type(error).__name__}: {error}", "final": False}
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the job closed it
            stream.flush()
    line.tell(**end)


def main() -> int:
    """Run jobs until the input ends. Return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all; the parent ends this process
    parser = child_arguments("operations.jobs.child")
    parser.add_argument("--hear", type=int, required=True)
    parser.add_argument("--tell", type=int, required=True)
    chosen = parser.parse_args()
    with os.fdopen(chosen.hear, "r") as hear, os.fdopen(chosen.tell, "w") as tell:
        line = Line(hear, tell)
        project = open_project(load_settings(chosen.project, chosen.profile))
        project.follow_definitions()
        while (asked := line.told()) is not None:
            run_job(project, line, asked)
        project.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
