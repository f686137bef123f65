"""Call of one step: its function with its arguments, or the job that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from mainspring.core.errors import Invalid
from mainspring.jobs.pipelines.graph import JOB, Node
from mainspring.jobs.pipelines.tracing import INJECTED, StepFunction
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.opened import OpenedProject
from mainspring.project import Project
from mainspring.project.definitions.loading import load_function

T = TypeVar("T")


class StepRun(Protocol):
    """The attempt in which a step is called, as `JobRun` is one."""

    @property
    def argument(self) -> Plain: ...
    def step(self, name: str, do: Callable[[], T]) -> T: ...
    def progress(self, done: float, total: float | None = None, note: str = "") -> None: ...
    def check(self) -> None: ...


class LoneRun:
    """A step's run without a job: nothing is recorded, and nobody can cancel it.

    Args:
        argument: The argument of a built-in job.
    """

    def __init__(self, argument: Plain = None) -> None:
        self.argument = argument

    def step(self, _name: str, do: Callable[[], T]) -> T:
        return do()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        pass

    def check(self) -> None:
        pass


def call_step(project: Project, node: Node, inputs: Mapping[str, Plain], run: StepRun | None = None) -> Plain:
    """Call a step and return its result as JSON restores it.

    Args:
        inputs: The function's arguments by name, or the fields of the job's argument.
        run: The attempt, for functions with a parameter `run`; by default a `LoneRun`.

    Raises:
        Invalid: The function is not in the project, or JSON cannot represent its result.
    """
    run = LoneRun(dict(inputs)) if run is None else run
    if node.function.startswith(JOB):
        handler: Any = handlers(project)[node.function.removeprefix(JOB)]
        result = handler(run)
    else:
        result = _function(project, node)(**{**inputs, **_injected(project, node, run)})
    return decoded(encoded(result, f"The result of step {node.name!r}"))


def _function(project: Project, node: Node) -> Callable[..., Any]:
    found: Any = load_function(project.settings, node.function)
    if not isinstance(found, StepFunction):
        raise Invalid(
            f"{node.function} is not a step any more.", fix="put @ms.step above it, or declare the pipeline again."
        )
    return found.do


def _injected(project: Project, node: Node, run: StepRun) -> dict[str, Any]:
    wanted = inspect.signature(_function(project, node)).parameters
    given = {"run": run, "project": OpenedProject(project)}
    return {name: given[name] for name in INJECTED if name in wanted}
