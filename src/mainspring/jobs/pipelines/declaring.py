"""Declaration of pipelines: `@ms.pipeline`, `ms.only_if`, `ms.approval`, and the events that start one.

The function of a pipeline is called once, when it is declared. Steps that it calls are not run: each becomes a node,
and its result a `Traced` value, which may be passed on to other steps, indexed and compared, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast, overload

from mainspring.core.definition_registry import caller, declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.jobs.model import MOST_PRIORITY
from mainspring.jobs.pipelines.graph import Graph, Node, Trigger
from mainspring.jobs.pipelines.steps import check_name
from mainspring.jobs.pipelines.traced import Traced, Tracer, check_count, nodes_of, tracing, value_of
from mainspring.jobs.pipelines.values import Comparison, Constant, Output, Parameter, Value
from mainspring.jobs.plain import Plain, encoded
from mainspring.jobs.times import parse_when


def only_if(condition: Any) -> AbstractContextManager[None]:
    """Run the steps declared inside the block only if a condition is true; else they are skipped.

    Args:
        condition: A comparison of a step's result or a parameter (`result["auc"] > 0.8`), or such a value itself,
            which must then be `True`.

    Raises:
        Invalid: It is neither, or stands outside of a pipeline.
    """
    tracer = tracing.get()
    if tracer is None or not isinstance(condition, Traced):
        raise Invalid(
            f"{caller()}: ms.only_if is given {condition!r:.80}.",
            fix="give a comparison of a step's result, inside a pipeline; use a plain `if` for a known value.",
        )
    value = value_of(condition, tracer, "The condition")
    return _conditional(tracer, value if isinstance(value, Comparison) else Comparison(value, "==", Constant(True)))


@contextmanager
def _conditional(tracer: Tracer, condition: Value) -> Iterator[None]:
    tracer.conditions.append(condition)
    try:
        yield
    finally:
        tracer.conditions.pop()


class Approval(Traced):
    """A wait for people. As a context manager, the steps inside the block wait for it."""

    __slots__ = ()

    def __enter__(self) -> Approval:
        self._tracer.waits.append(cast("Output", self._value).node)
        return self

    def __exit__(self, *_: object) -> None:
        self._tracer.waits.pop()


def approval(name: str, *, by: int = 1, after: Any = None) -> Approval:
    """Wait until people have approved: `with ms.approval("go-live"): promote(model)`. No process waits meanwhile.

    Args:
        name: Its name, an id.
        by: How many different people must approve.
        after: Steps to wait for before asking; by default all that were declared before.

    Raises:
        Invalid: It stands outside of a pipeline, or an argument is not valid.
    """
    tracer = tracing.get()
    if tracer is None:
        raise Invalid("ms.approval stands outside of a pipeline.", fix="call it in a function with @ms.pipeline.")
    check_count(by, f"by of approval {name!r}", 1, 100)
    before = tuple(node.name for node in tracer.nodes) if after is None else nodes_of(after, tracer)
    added = tracer.add(Node(check_id(name, "approval"), kind="approval", after=before, by=by))
    return Approval(value_of(added, tracer, f"The approval {name!r}"), tracer)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A declared pipeline.

    Attributes:
        graph: The traced graph.
        do: The function.
    """

    graph: Graph
    do: Callable[..., Any] = field(repr=False)

    @property
    def name(self) -> str:
        return self.graph.name

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        inside = tracing.get()
        where = f"inside {inside.name!r}" if inside else "as a function"
        raise Invalid(
            f"{caller()}: pipeline {self.name!r} is called {where}.",
            fix="call its steps there; a pipeline is started with `mainspring pipelines run` or project.run_pipeline.",
        )


def landed(source: str | Any) -> Trigger:
    """Return the trigger for new data in a source, by name or declaration."""
    return Trigger("landed", check_id(getattr(source, "name", source), "source"))


def drifted(endpoint: str | Any) -> Trigger:
    """Return the trigger for a drift alert of an endpoint, by name or declaration."""
    return Trigger("drifted", check_id(getattr(endpoint, "name", endpoint), "endpoint"))


def incident(endpoint: str | Any, *, channel: str = "") -> Trigger:
    """Return the trigger for a new incident of an endpoint, by name or declaration.

    Args:
        channel: Channel of monitoring that one of its signals is from, such as `"harm"`; by default any.
    """
    name = check_id(getattr(endpoint, "name", endpoint), "endpoint")
    return Trigger("incident", f"{name}/{check_id(channel, 'channel')}" if channel else name)


def webhook(name: str) -> Trigger:
    """Return the trigger for a delivery of the webhook of this name."""
    return Trigger("webhook", check_id(name, "webhook"))


@overload
def pipeline(do: Callable[..., Any], /) -> Pipeline: ...
@overload
def pipeline(
    *, name: str = ..., every: str = ..., when: Sequence[Trigger] = ..., limit: int | None = ..., priority: int = ...
) -> Callable[[Callable[..., Any]], Pipeline]: ...


def pipeline(
    do: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    every: str = "",
    when: Sequence[Trigger] = (),
    limit: int | None = 1,
    priority: int = 0,
) -> Any:
    """Declare a function as a pipeline: the steps that it calls, with their order, conditions and inputs.

    The function is called once, here. Its parameters are those of a run, so each needs a default. What it returns is
    the result of a run.

    Args:
        name: Name of the pipeline, an id; by default the function's, with `-` for `_`.
        every: A schedule: a duration ("1d") or five cron fields in UTC ("30 3 * * 1").
        when: Events that start it: `ms.landed(source)`, `ms.drifted(endpoint)`,
            `ms.incident(endpoint)`, `ms.webhook(name)`.
        limit: How many runs may be under way at once; others wait. `None` for any number.
        priority: Head start of its runs and steps before other work of the worker, in hours: from -100 (nightly) to
            100 (urgent). Work that has waited longer than another's head start comes first, so none waits for ever.

    Raises:
        Invalid: The declaration is not valid; the message names file, line and what to do.
    """

    def declared(function: Any) -> Pipeline:
        if not inspect.isfunction(function):
            raise Invalid(f"{caller()}: a pipeline is made of {function!r}.", fix="put @ms.pipeline above a function.")
        made = Pipeline(_traced(function, name, every, tuple(when), limit, priority), function)
        declare(made)
        return made

    return declared if do is None else declared(do)


def _traced(
    function: Callable[..., Any],
    name: str,
    every: str,
    when: tuple[Trigger, ...],
    limit: int | None,
    priority: int,
) -> Graph:
    known = check_name(name or function.__name__.replace("_", "-"), "pipeline")
    check_count(priority, f"priority of pipeline {known!r}", -MOST_PRIORITY, MOST_PRIORITY)
    if every:
        parse_when(every)
    if limit is not None:
        check_count(limit, f"limit of pipeline {known!r}", 1, 100_000)
    for each in cast("tuple[Any, ...]", when):
        if not isinstance(each, Trigger):
            raise Invalid(
                f"A trigger of pipeline {known!r} is {each!r:.80}.",
                fix='use ms.landed("SOURCE"), ms.drifted("ENDPOINT"), ms.incident("ENDPOINT") or ms.webhook("NAME").',
            )
    if tracing.get() is not None:
        raise Invalid(f"{caller()}: pipeline {known!r} is declared inside another.", fix="declare it on its own.")
    defaults = _defaults(function, known)
    tracer = Tracer(known)
    token = tracing.set(tracer)
    try:
        returned = function(**{each: Traced(Parameter(each), tracer) for each in defaults})
        result = None if returned is None else value_of(returned, tracer, f"The result of pipeline {known!r}")
    finally:
        tracing.reset(token)
    if not tracer.nodes:
        raise Invalid(f"Pipeline {known!r} has no steps.", fix="call a function with @ms.step in it.")
    about = next(iter((inspect.getdoc(function) or "").splitlines()), "")
    return Graph(known, tuple(tracer.nodes), tuple(defaults.items()), result, limit, every, when, about, priority)


def _defaults(function: Callable[..., Any], name: str) -> Mapping[str, Plain]:
    found = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) or each.default is each.empty:
            raise Invalid(
                f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}: the parameter {each} of pipeline "
                f"{name!r} has no default.",
                fix=f"write {each.name}=..., so that schedules and triggers can start it.",
            )
        encoded(each.default, f"The default of {each.name} of pipeline {name!r}")
        found[each.name] = each.default
    return found
