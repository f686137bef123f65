"""Declaration of steps: `@ms.step` and `ms.task`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, overload

from mainspring.core.definition_registry import caller
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.jobs.pipelines.graph import JOB, MOST_ITEMS, Node
from mainspring.jobs.pipelines.traced import Traced, Tracer, check_count, nodes_of, tracing, value_of
from mainspring.jobs.pipelines.values import Item, Output, Parameter

ENGINES = ("", "ray", "spark", "kubernetes")
SPARK = "spark"  # the engine, and the parameter of its steps that gets the session
_RESERVED = "after"
_MOST_CPU = 10_000
_LONGEST = 100  # of names that are parts of longer ones, for which databases have 128 characters
_MEMORY = re.compile(r"([1-9]\d{0,8})(Mi|Gi)")


@dataclass(frozen=True, eq=False)
class StepFunction:
    """A function that pipelines can run as a step. Called outside of a pipeline, it is the function itself.

    Attributes:
        do: The function.
        node: The node it becomes, without inputs.
    """

    do: Callable[..., Any]
    node: Node

    @property
    def name(self) -> str:
        return self.node.name

    def __call__(self, *given: Any, **named: Any) -> Any:
        tracer = tracing.get()
        if tracer is None:
            return self.do(*given, **named)
        return tracer.add(self._with(tracer, given, named))

    def map(self, over: Any, /, *given: Any, most: int = MOST_ITEMS, **named: Any) -> Any:
        """Run the step for each element of a list, which is the first argument; the result is the list of results.

        Args:
            over: A list, or the result of a step that returns one.
            most: Largest length that is accepted, at most 10,000.

        Raises:
            Invalid: The list is too long, or neither a list nor the result of a step.
        """
        tracer = tracing.get()
        if tracer is None:
            return [self.do(each, *given, **named) for each in over]
        check_count(most, "most", 1, 10_000)
        if not isinstance(over, (Traced, list, tuple)):
            raise Invalid(f"{caller()}: {self.name}.map is given {over!r:.80}.", fix="give a list or a step's result.")
        if not isinstance(over, Traced) and len(over) > most:
            raise Invalid(
                f"{caller()}: {self.name}.map is given {len(over)} elements, more than {most}.",
                fix=f"give most={len(over)}, or fewer and larger elements.",
            )
        value = value_of(over, tracer, f"The list of {self.name}.map")
        if isinstance(over, Traced) and not isinstance(value, (Output, Parameter)):
            raise Invalid(f"{caller()}: {self.name}.map is given {over!r}.", fix="give a list or a step's result.")
        item = Traced(Item(), tracer)
        node = self._with(tracer, (item, *given), named)
        return tracer.add(replace(node, over=value, most=most))

    def _with(self, tracer: Tracer, given: tuple[Any, ...], named: dict[str, Any]) -> Node:
        """Return the step's node with these arguments."""
        after = nodes_of(named.pop(_RESERVED, ()), tracer)
        signature = _signature(self.do, self.node.engine)
        try:
            bound = signature.bind(*given, **named)
        except TypeError as error:
            raise Invalid(f"{caller()}: step {self.name!r}: {error}.", fix=f"it takes {signature}.") from None
        flat = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                flat |= flat.pop(parameter.name, {})
        inputs = tuple((name, value_of(each, tracer, f"{name} of step {self.name!r}")) for name, each in flat.items())
        return replace(self.node, inputs=inputs, after=after)


def check_name(text: str, what: str) -> str:
    """Return a name from which names of jobs and their groups are made.

    Raises:
        Invalid: It is not an id, or longer than 100 characters.
    """
    return check_id(text, what, longest=_LONGEST)


def injected(engine: str) -> tuple[str, ...]:
    """Return the parameters of a step that the runner fills in."""
    return ("run", "project", SPARK) if engine == SPARK else ("run", "project")


def _signature(do: Callable[..., Any], engine: str) -> inspect.Signature:
    """Return the signature without the parameters that the runner fills in."""
    found, names = inspect.signature(do), injected(engine)
    return found.replace(parameters=[each for name, each in found.parameters.items() if name not in names])


@overload
def step(do: Callable[..., Any], /) -> StepFunction: ...
@overload
def step(
    *,
    name: str = ...,
    retries: int = ...,
    timeout: str | None = ...,
    cache: bool = ...,
    engine: str | None = ...,
    group: str = ...,
    limit: int | None = ...,
    cpu: float | None = ...,
    memory: str | None = ...,
    gpu: int = ...,
) -> Callable[[Callable[..., Any]], StepFunction]: ...


def step(
    do: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    retries: int = 2,
    timeout: str | None = None,
    cache: bool = False,
    engine: str | None = None,
    group: str = "",
    limit: int | None = None,
    cpu: float | None = None,
    memory: str | None = None,
    gpu: int = 0,
) -> Any:
    """Declare a function as a step of pipelines.

    Arguments and the result are JSON values of at most a megabyte; larger data is stored elsewhere (in the lake, in the
    artifacts) and passed by name. A parameter `project` gets the opened project, as from `ms.open`; a parameter `run`
    gets the step's run: `run.progress(done, total)`, `run.id`; with engine="spark" a parameter `spark` gets the
    `SparkSession`. A step that is killed before its result is recorded runs
    again, so it must tolerate that.

    Args:
        name: Name of the step, an id; by default the function's, with `-` for `_`.
        retries: Further attempts after a failed one, with growing delays.
        timeout: Longest time of an attempt, such as "10m". Then its process is killed, and the attempt has failed.
        cache: Reuse the result where the source, the arguments and the data versions are the same.
        engine: Where to run: `None` for a process of the worker's machine, or "ray", "spark", "kubernetes".
        group: Steps of a group share a limit, whatever their pipeline; by default the step's name if a limit is given.
        limit: How many steps of the group may run at once.
        cpu: Processors that it needs, on engines that give them out: Ray, Kubernetes, Argo and Kubeflow.
        memory: Memory that it needs there, such as "4Gi".
        gpu: GPUs that it needs there.

    Raises:
        Invalid: The decorated object is not a function, or an option is not valid.
    """

    def declared(function: Any) -> StepFunction:
        if not inspect.isfunction(function):
            raise Invalid(f"{caller()}: a step is made of {function!r}.", fix="put @ms.step above a function.")
        known = check_id(name or function.__name__.replace("_", "-"), "step")
        _check_function(function, known)
        check_count(retries, f"retries of step {known!r}", 0, 100)
        if (engine or "") not in ENGINES:
            raise Invalid(f"Step {known!r} has engine={engine!r}.", fix=f"use one of {ENGINES[1:]}, or leave it out.")
        if limit is not None:
            check_count(limit, f"limit of step {known!r}", 1, 100_000)
        if group and limit is None:
            raise Invalid(f"Step {known!r} has a group without a limit.", fix="give limit=N.")
        if cpu is not None and not _is_number(cpu):
            raise Invalid(
                f"{caller()}: cpu of step {known!r} is {cpu!r}.", fix="give a number of processors, such as 2."
            )
        check_count(gpu, f"gpu of step {known!r}", 0, 1_000)
        node = Node(
            known,
            function=f"{function.__module__}:{function.__qualname__}",
            retries=retries,
            timeout_us=None if timeout is None else parse_duration(timeout),
            cache=cache,
            engine=engine or "",
            group=check_name(group or known, "group") if limit is not None else "",
            group_limit=limit,
            cpu=cpu,
            memory=None if memory is None else _bytes(memory, known),
            gpu=gpu,
        )
        return StepFunction(function, node)

    return declared if do is None else declared(do)


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given <= _MOST_CPU


def _bytes(text: Any, step: str) -> int:
    found = _MEMORY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Invalid(f"{caller()}: memory of step {step!r} is {text!r}.", fix='write "500Mi", or "4Gi".')
    return int(found[1]) * (1 << (20 if found[2] == "Mi" else 30))


def _check_function(function: Callable[..., Any], name: str) -> None:
    if "<locals>" in function.__qualname__ or function.__name__ == "<lambda>":
        raise Invalid(
            f"{caller()}: step {name!r} is made inside a function, so another process cannot import it.",
            fix="declare it at the top of a module.",
        )
    for each in inspect.signature(function).parameters.values():
        if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL) or each.name == _RESERVED:
            raise Invalid(
                f"{caller()}: step {name!r} has the parameter {each}.",
                fix="name its parameters, and none of them after; pass several values as a list.",
            )


def task(job: str, /, **argument: Any) -> Any:
    """Run one of the built-in or own jobs as a step of a pipeline: `ms.task("train", model="churn")`.

    Its argument is checked when the step runs. `mainspring jobs --help` lists the jobs.

    Raises:
        Invalid: It is called outside of a pipeline, or JSON cannot represent the argument.
    """
    tracer = tracing.get()
    if tracer is None:
        raise Invalid("ms.task is called outside of a pipeline.", fix=f"run `mainspring jobs run {job}`.")
    after = nodes_of(argument.pop(_RESERVED, ()), tracer)
    inputs = tuple((name, value_of(each, tracer, f"{name} of job {job!r}")) for name, each in argument.items())
    return tracer.add(Node(check_id(job, "job"), function=f"{JOB}{job}", inputs=inputs, after=after, retries=2))
