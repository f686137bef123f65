"""A step that another process is asked to call, and its answer: both are JSON.

The answer is `{"done": RESULT}`, or `{"failed": TEXT, "final": whether another attempt would fail as well}`, or
`{"held": WHY, "again_after_us": TIME}` if another attempt may begin later.
"""

from __future__ import annotations

import json
import time
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.settings import Settings
from mainspring.core.time import format_duration
from mainspring.jobs.model import JobHeld, JobStopped, Renewal, StepFailed
from mainspring.jobs.pipelines.ports import StepCall
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun

ENTRY = "mainspring.operations.pipelines.elsewhere"  # the module that answers


def asked(settings: Settings, call: StepCall, id: str, **more: Plain) -> str:
    """Return the request for one attempt at a step.

    Args:
        id: Id of the job, for the step's `run.id`.
        more: What the engine's way to call the step needs besides.
    """
    return json.dumps(
        {
            "root": str(settings.root),
            "profile": settings.profile,
            "id": id,
            "pipeline": call.pipeline,
            "step": call.step,
            "function": call.function,
            "inputs": dict(call.inputs),
            "by": call.by,
            "teams": list(call.teams),
            "teams_why": call.teams_why,
            **more,
        }
    )


def value(answer: str, job: str) -> Plain:
    """Return the result of a job's step.

    Raises:
        JobHeld: The step is put off.
        Invalid: The step refused its inputs.
        StepFailed: It failed otherwise.
    """
    found: dict[str, Any] = json.loads(answer)
    if "done" in found:
        return found["done"]
    if "held" in found:
        raise JobHeld(job, found["held"], again_after_us=found["again_after_us"])
    raise (Invalid if found["final"] else StepFailed)(found["failed"])


class Watch:
    """Time-out and stop of an attempt, to be looked at several times a second."""

    def __init__(self, attempt: JobRun) -> None:
        self._attempt = attempt
        self._until = None if attempt.timeout_us is None else time.monotonic() + attempt.timeout_us / 1e6

    def look(self) -> None:
        """Raise if the attempt must end.

        Raises:
            JobStopped: The job is cancelled, another runner has it, or its runner stops.
            StepFailed: It took too long.
        """
        if (said := self._attempt.asked()) is not Renewal.HELD:
            raise JobStopped(self._attempt.id, said)
        if self._until is not None and time.monotonic() >= self._until:
            told = format_duration(self._attempt.timeout_us or 0)
            raise StepFailed(f"It took longer than {told}, and was ended.", fix="give it a longer timeout.")
