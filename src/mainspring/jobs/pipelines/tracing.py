"""Declaration of pipelines: `@ms.step`, `@ms.pipeline`, `ms.only_if`, `ms.approval` and `ms.task`.

The function of a pipeline is called once, when it is declared. Steps that it calls are not run: each becomes a node,
and its result a `Traced` value, which may be passed on to other steps, indexed and compared, and nothing else.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, cast, overload

from mainspring.core.definition_registry import caller, declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.jobs.model import MOST_PRIORITY
from mainspring.jobs.pipelines.graph import JOB, MOST_ITEMS, Graph, Node, Trigger
from mainspring.jobs.pipelines.values import (
    Comparison,
    Constant,
    Fields,
    Item,
    Output,
    Parameter,
    Path,
    Several,
    Value,
    shown,
)
from mainspring.jobs.plain import Plain, encoded
from mainspring.jobs.times import parse_when

ENGINES = ("", "ray", "spark", "kubernetes")
SPARK = "spark"  # the engine, and the parameter of its steps that gets the session
_RESERVED = "after"


class _Tracer:
    """The pipeline that is being traced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.conditions: list[Value] = []
        self.waits: list[str] = []  # approvals around the steps being declared
        self._names: Counter[str] = Counter()

    def add(self, node: Node) -> Traced:
        """Add a node and return its result; the second node of a name is called `name-2`."""
        self._names[node.name] += 1
        count = self._names[node.name]
        name = node.name if count == 1 else f"{node.name}-{count}"
        node = replace(
            node, name=name, when=tuple(self.conditions), after=tuple(dict.fromkeys([*node.after, *self.waits]))
        )
        self.nodes.append(node)
        return Traced(Output(name), self)


def _count(given: Any, what: str, least: int, most: int) -> int:
    """Return a whole number within bounds.

    Raises:
        Invalid: It is none.
    """
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise Invalid(f"{caller()}: {what} is {given!r}.", fix=f"give a number from {least} to {most:,}.")
    return given


_tracing: ContextVar[_Tracer | None] = ContextVar("mainspring_pipeline", default=None)


class Traced:
    """A value that is not known before the pipeline runs: a parameter, or the result of a step.

    It can be passed to a step, indexed (`value["auc"]`, `value[0]`) and compared. Anything else belongs into a step.
    """

    __slots__ = ("_tracer", "_value")

    def __init__(self, value: Value, tracer: _Tracer) -> None:
        self._value = value
        self._tracer = tracer

    def __getitem__(self, at: str | int) -> Traced:
        value = self._value
        if isinstance(at, bool) or not isinstance(at, (str, int)):
            self._refuse(f"is indexed with {at!r}", "use a name or a number.")
        if not isinstance(value, (Output, Parameter, Item)):
            self._refuse("is indexed", "index the result of a step.")
        path: Path = (*value.path, at)
        return Traced(replace(value, path=path), self._tracer)

    def _compared(self, sign: str, other: Any) -> Traced:
        tracer = self._tracer
        return Traced(Comparison(self._value, sign, _value(other, tracer, "A comparison")), tracer)

    def __lt__(self, other: Any) -> Traced:
        return self._compared("<", other)

    def __le__(self, other: Any) -> Traced:
        return self._compared("<=", other)

    def __gt__(self, other: Any) -> Traced:
        return self._compared(">", other)

    def __ge__(self, other: Any) -> Traced:
        return self._compared(">=", other)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return self._compared("==", other)

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return self._compared("!=", other)

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        self._refuse("is used as a condition", "write `with ms.only_if(value):` around the steps that depend on it.")

    def __iter__(self) -> NoReturn:
        self._refuse("is iterated over", "write `step.map(value)`: it runs the step for each element.")

    def __len__(self) -> NoReturn:  # noqa: PLE0303
        self._refuse("is measured with len()", _IN_A_STEP)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(f"is asked for its attribute {name!r}", f"write value[{name!r}], or {_IN_A_STEP}")

    def _calculated(self, *_: Any) -> NoReturn:
        self._refuse("is calculated with", _IN_A_STEP)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _calculated
    __floordiv__ = __mod__ = __pow__ = __neg__ = __abs__ = __int__ = __float__ = __index__ = _calculated
    __call__ = __contains__ = _calculated

    def __repr__(self) -> str:
        return f"<{shown(self._value)} of pipeline {self._tracer.name}>"

    def _refuse(self, how: str, fix: str) -> NoReturn:
        raise Invalid(
            f"{caller()}: {shown(self._value)} of pipeline {self._tracer.name!r} {how}, but is not known before it "
            "runs.",
            fix=fix,
        )


_IN_A_STEP = "do it inside a function with @ms.step."


def _value(given: Any, tracer: _Tracer, what: str) -> Value:
    """Return what a step is given as a value of the graph.

    Raises:
        Invalid: It comes from another pipeline, or JSON cannot represent it.
    """
    if isinstance(given, Traced):
        if given._tracer is not tracer:
            raise Invalid(
                f"{caller()}: {what} is {shown(given._value)}, which belongs to pipeline {given._tracer.name!r}.",
                fix=f"call the step inside {tracer.name!r} as well.",
            )
        return given._value
    if isinstance(given, (list, tuple)) and _has_traced(given):
        return Several(tuple(_value(each, tracer, what) for each in given))
    if isinstance(given, dict) and _has_traced(list(given.values())):
        return Fields(tuple((str(name), _value(each, tracer, what)) for name, each in given.items()))
    try:
        encoded(given, what)
    except Invalid as error:
        fix = (
            f"pass the step's call, not the step: {given.name}(...)." if isinstance(given, StepFunction) else error.fix
        )
        raise Invalid(f"{caller()}: {error.what}", fix=fix) from None
    return Constant(given)


def _has_traced(values: Sequence[Any]) -> bool:
    return any(
        isinstance(each, Traced)
        or (isinstance(each, (list, tuple)) and _has_traced(each))
        or (isinstance(each, dict) and _has_traced(list(each.values())))
        for each in values
    )


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
        tracer = _tracing.get()
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
        tracer = _tracing.get()
        if tracer is None:
            return [self.do(each, *given, **named) for each in over]
        _count(most, "most", 1, 10_000)
        if not isinstance(over, (Traced, list, tuple)):
            raise Invalid(f"{caller()}: {self.name}.map is given {over!r:.80}.", fix="give a list or a step's result.")
        if not isinstance(over, Traced) and len(over) > most:
            raise Invalid(
                f"{caller()}: {self.name}.map is given {len(over)} elements, more than {most}.",
                fix=f"give most={len(over)}, or fewer and larger elements.",
            )
        if isinstance(over, Traced) and not isinstance(over._value, (Output, Parameter)):
            raise Invalid(f"{caller()}: {self.name}.map is given {over!r}.", fix="give a list or a step's result.")
        item = Traced(Item(), tracer)
        node = self._with(tracer, (item, *given), named)
        return tracer.add(replace(node, over=_value(over, tracer, f"The list of {self.name}.map"), most=most))

    def _with(self, tracer: _Tracer, given: tuple[Any, ...], named: dict[str, Any]) -> Node:
        """Return the step's node with these arguments."""
        after = _after(named.pop(_RESERVED, ()), tracer)
        signature = _signature(self.do, self.node.engine)
        try:
            bound = signature.bind(*given, **named)
        except TypeError as error:
            raise Invalid(f"{caller()}: step {self.name!r}: {error}.", fix=f"it takes {signature}.") from None
        flat = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                flat |= flat.pop(parameter.name, {})
        inputs = tuple((name, _value(each, tracer, f"{name} of step {self.name!r}")) for name, each in flat.items())
        return replace(self.node, inputs=inputs, after=after)


def injected(engine: str) -> tuple[str, ...]:
    """Return the parameters of a step that the runner fills in."""
    return ("run", "project", SPARK) if engine == SPARK else ("run", "project")


def _signature(do: Callable[..., Any], engine: str) -> inspect.Signature:
    """Return the signature without the parameters that the runner fills in."""
    found, names = inspect.signature(do), injected(engine)
    return found.replace(parameters=[each for name, each in found.parameters.items() if name not in names])


def _after(given: Any, tracer: _Tracer) -> tuple[str, ...]:
    found = []
    for each in given if isinstance(given, (list, tuple)) else [given]:
        value = _value(each, tracer, "after") if isinstance(each, Traced) else None
        if not isinstance(value, Output):
            raise Invalid(f"{caller()}: after is {each!r:.80}.", fix="give the result of a step, or a list of them.")
        found.append(value.node)
    return tuple(found)


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

    Raises:
        Invalid: The decorated object is not a function, or an option is not valid.
    """

    def declared(function: Any) -> StepFunction:
        if not inspect.isfunction(function):
            raise Invalid(f"{caller()}: a step is made of {function!r}.", fix="put @ms.step above a function.")
        known = check_id(name or function.__name__.replace("_", "-"), "step")
        _check_function(function, known)
        _count(retries, f"retries of step {known!r}", 0, 100)
        if (engine or "") not in ENGINES:
            raise Invalid(f"Step {known!r} has engine={engine!r}.", fix=f"use one of {ENGINES[1:]}, or leave it out.")
        if limit is not None:
            _count(limit, f"limit of step {known!r}", 1, 100_000)
        if group and limit is None:
            raise Invalid(f"Step {known!r} has a group without a limit.", fix="give limit=N.")
        node = Node(
            known,
            function=f"{function.__module__}:{function.__qualname__}",
            retries=retries,
            timeout_us=None if timeout is None else parse_duration(timeout),
            cache=cache,
            engine=engine or "",
            group=check_id(group or known, "group") if limit is not None else "",
            group_limit=limit,
        )
        return StepFunction(function, node)

    return declared if do is None else declared(do)


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
    tracer = _tracing.get()
    if tracer is None:
        raise Invalid("ms.task is called outside of a pipeline.", fix=f"run `mainspring jobs run {job}`.")
    after = _after(argument.pop(_RESERVED, ()), tracer)
    inputs = tuple((name, _value(each, tracer, f"{name} of job {job!r}")) for name, each in argument.items())
    return tracer.add(Node(check_id(job, "job"), function=f"{JOB}{job}", inputs=inputs, after=after, retries=2))


def only_if(condition: Any) -> AbstractContextManager[None]:
    """Run the steps declared inside the block only if a condition is true; else they are skipped.

    Args:
        condition: A comparison of a step's result or a parameter (`result["auc"] > 0.8`), or such a value itself,
            which must then be `True`.

    Raises:
        Invalid: It is neither, or stands outside of a pipeline.
    """
    tracer = _tracing.get()
    if tracer is None or not isinstance(condition, Traced):
        raise Invalid(
            f"{caller()}: ms.only_if is given {condition!r:.80}.",
            fix="give a comparison of a step's result, inside a pipeline; use a plain `if` for a known value.",
        )
    value = _value(condition, tracer, "The condition")
    return _conditional(tracer, value if isinstance(value, Comparison) else Comparison(value, "==", Constant(True)))


@contextmanager
def _conditional(tracer: _Tracer, condition: Value) -> Iterator[None]:
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
    tracer = _tracing.get()
    if tracer is None:
        raise Invalid("ms.approval stands outside of a pipeline.", fix="call it in a function with @ms.pipeline.")
    _count(by, f"by of approval {name!r}", 1, 100)
    before = tuple(node.name for node in tracer.nodes) if after is None else _after(after, tracer)
    added = tracer.add(Node(check_id(name, "approval"), kind="approval", after=before, by=by))
    return Approval(added._value, tracer)


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
        inside = _tracing.get()
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
        when: Events that start it: `ms.landed(source)`, `ms.drifted(endpoint)`, `ms.webhook(name)`.
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
    known = check_id(name or function.__name__.replace("_", "-"), "pipeline")
    _count(priority, f"priority of pipeline {known!r}", -MOST_PRIORITY, MOST_PRIORITY)
    if every:
        parse_when(every)
    if limit is not None:
        _count(limit, f"limit of pipeline {known!r}", 1, 100_000)
    for each in cast("tuple[Any, ...]", when):
        if not isinstance(each, Trigger):
            raise Invalid(
                f"A trigger of pipeline {known!r} is {each!r:.80}.",
                fix='use ms.landed("SOURCE"), ms.drifted("ENDPOINT") or ms.webhook("NAME").',
            )
    if _tracing.get() is not None:
        raise Invalid(f"{caller()}: pipeline {known!r} is declared inside another.", fix="declare it on its own.")
    defaults = _defaults(function, known)
    tracer = _Tracer(known)
    token = _tracing.set(tracer)
    try:
        returned = function(**{each: Traced(Parameter(each), tracer) for each in defaults})
        result = None if returned is None else _value(returned, tracer, f"The result of pipeline {known!r}")
    finally:
        _tracing.reset(token)
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
