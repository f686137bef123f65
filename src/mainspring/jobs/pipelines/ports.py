"""Port of step runners: run one step of a pipeline somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun


@dataclass(frozen=True, slots=True)
class StepCall:
    """One attempt at a step.

    Args:
        pipeline: Name of the pipeline.
        run: Id of its run.
        step: Name of the step, with the item's position if it is one of a mapped step: `fit[3]`.
        function: `module:name`, or `job:NAME`.
        inputs: JSON values by argument.
        log: File that what the step writes is appended to.
        resources: What it needs of `cpu`, `memory` (bytes) and `gpu`.
        by: Who started the run; empty for a schedule or trigger.
        teams: Who pays for the step. `teams_why`: the reason, of `cost.paying`.
    """

    pipeline: str
    run: str
    step: str
    function: str
    inputs: Mapping[str, Plain]
    log: Path
    resources: Mapping[str, float] = field(default_factory=dict)
    by: str = ""
    teams: tuple[str, ...] = ()
    teams_why: str = ""


class StepRunner(Protocol):
    """Runs steps on an engine. Safe across threads."""

    def run(self, call: StepCall, attempt: JobRun) -> Plain:
        """Run a step to its end and return its JSON value.

        The runner asks `attempt.asked()` at least once a second, and ends the step's process when it is not `HELD`
        or when `attempt.timeout_us` is over. It may call `attempt.progress`.

        Raises:
            Invalid: The step refuses its inputs: another attempt would as well.
            MainspringError: The attempt failed; there may be another.
            JobHeld: The step is put off; the attempt does not count.
            JobStopped: The step was told to stop, and has ended.
        """
        ...
