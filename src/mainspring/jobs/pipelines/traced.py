"""Values that are not known before a pipeline runs, and the tracer that collects the steps which they go through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NoReturn

from mainspring.core.definition_registry import caller
from mainspring.core.errors import Invalid
from mainspring.jobs.pipelines.graph import Node
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
from mainspring.jobs.plain import encoded


class Tracer:
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


tracing: ContextVar[Tracer | None] = ContextVar("mainspring_pipeline", default=None)


class Traced:
    """A value that is not known before the pipeline runs: a parameter, or the result of a step.

    It can be passed to a step, indexed (`value["auc"]`, `value[0]`) and compared. Anything else belongs into a step.
    """

    __slots__ = ("_tracer", "_value")

    def __init__(self, value: Value, tracer: Tracer) -> None:
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
        return Traced(Comparison(self._value, sign, value_of(other, tracer, "A comparison")), tracer)

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


def value_of(given: Any, tracer: Tracer, what: str) -> Value:
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
        return Several(tuple(value_of(each, tracer, what) for each in given))
    if isinstance(given, dict) and _has_traced(list(given.values())):
        return Fields(tuple((str(name), value_of(each, tracer, what)) for name, each in given.items()))
    try:
        encoded(given, what)
    except Invalid as error:
        step = getattr(given, "node", None)
        fix = f"pass the step's call, not the step: {step.name}(...)." if isinstance(step, Node) else error.fix
        raise Invalid(f"{caller()}: {error.what}", fix=fix) from None
    return Constant(given)


def _has_traced(values: Sequence[Any]) -> bool:
    return any(
        isinstance(each, Traced)
        or (isinstance(each, (list, tuple)) and _has_traced(each))
        or (isinstance(each, dict) and _has_traced(list(each.values())))
        for each in values
    )


def nodes_of(given: Any, tracer: Tracer) -> tuple[str, ...]:
    found = []
    for each in given if isinstance(given, (list, tuple)) else [given]:
        value = value_of(each, tracer, "after") if isinstance(each, Traced) else None
        if not isinstance(value, Output):
            raise Invalid(f"{caller()}: after is {each!r:.80}.", fix="give the result of a step, or a list of them.")
        found.append(value.node)
    return tuple(found)


def check_count(given: Any, what: str, least: int, most: int) -> int:
    """Return a whole number within bounds.

    Raises:
        Invalid: It is none.
    """
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise Invalid(f"{caller()}: {what} is {given!r}.", fix=f"give a number from {least} to {most:,}.")
    return given
