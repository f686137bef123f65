"""Call of one step: its function with its arguments, or the job that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from mainspring.core.errors import Invalid
from mainspring.jobs.pipelines.graph import JOB, Node
from mainspring.jobs.pipelines.steps import SPARK, StepFunction, injected
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.opened import OpenedProject
from mainspring.project import Project
from mainspring.project.backends.engines import spark_session
from mainspring.project.definitions.loading import load_function
from mainspring.registry.processes import current_starter

T = TypeVar("T")
_SESSION = object()  # stands for the session until the inputs are known to fit


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
        id: Id of the job for which the step is called elsewhere.
    """

    team = ""

    def __init__(self, argument: Plain = None, id: str = "") -> None:
        self.argument = argument
        self.id = id
        self.started_by = current_starter()

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
        do = function_of(project, node)
        given = {**inputs, **_injected(do, project, run, node.engine)}
        try:
            inspect.signature(do).bind(**given)
        except TypeError as error:
            raise Invalid(
                f"Step {node.name!r} does not take its inputs: {error}.",
                fix="its source has changed since the pipeline was started: start a new run.",
            ) from None
        if given.get(SPARK) is _SESSION:
            with spark_session(project.settings, f"{project.settings.project} {node.name}") as session:
                result = do(**{**given, SPARK: session})
        else:
            result = do(**given)
    return decoded(encoded(result, f"The result of step {node.name!r}"))


def function_of(project: Project, node: Node) -> Callable[..., Any]:
    """Return a step's function, as its file is now.

    Raises:
        Invalid: The project has no such step.
    """
    found: Any = load_function(project.settings, node.function)
    if not isinstance(found, StepFunction):
        raise Invalid(
            f"{node.function} is not a step any more.", fix="put @ms.step above it, or declare the pipeline again."
        )
    return found.do


def _injected(do: Callable[..., Any], project: Project, run: StepRun, engine: str) -> dict[str, Any]:
    wanted = inspect.signature(do).parameters
    given = {"run": run, "project": OpenedProject(project), SPARK: _SESSION}
    return {name: given[name] for name in injected(engine) if name in wanted}
