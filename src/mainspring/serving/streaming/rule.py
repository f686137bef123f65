"""Rules over events: expressions of a batch, or a function of an event and the state of its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import Schema
from mainspring.serving.streaming.event import StreamEvent

Columns = Mapping[str, Sequence[Any]]
Outputs = Mapping[str, Any]


class Rule:
    """A rule of a stream endpoint.

    Raises:
        Invalid: It is neither a mapping of expressions nor a function.
    """

    def __init__(self, rule: Mapping[str, Node] | Callable[..., Any] | None, endpoint: str) -> None:
        self.function = rule if callable(rule) else None
        self._expressions: list[tuple[str, Node]] = []
        if rule is None or self.function is not None:
            return
        if not isinstance(rule, Mapping) or not all(isinstance(each, Node) for each in rule.values()):
            raise Invalid(
                f"The rule of stream endpoint {endpoint!r} is {rule!r}.",
                fix='write rule={"alert": ms.col("probability") > 0.5}, or a function.',
            )
        self._expressions = list(rule.items())

    @property
    def reads(self) -> set[str]:
        """Names that its expressions read."""
        return {name for _, expression in self._expressions for name in columns_of(expression)}

    def values(self, columns: Columns, schema: Schema, rows: int) -> dict[str, list[Any]]:
        """Return the value of each expression, shape (rows,).

        Raises:
            Invalid: An expression reads a name that there is not, or combines types that do not go together.
        """
        if unknown := sorted(self.reads - schema.keys()):
            raise Invalid(f"The rule reads {unknown}.", fix=f"there are {sorted(schema)}.")
        vectors: dict[str, Vector] = {name: vector(columns[name], schema[name]) for name in self.reads}
        return {name: evaluate(each, vectors, schema, rows).to_list() for name, each in self._expressions}


def judged(found: Any, stateful: bool, state: Any, event: StreamEvent) -> tuple[Outputs | None, Any]:
    """Return the outputs and the state that a rule's function returned.

    Raises:
        Invalid: It returned something else.
    """
    outputs = found
    if stateful:
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], type(state)):
            raise Invalid(
                f"The rule returned {found!r} for event {event.id}.", fix="return the outputs and the new state."
            )
        outputs, state = found
    if outputs is not None and not isinstance(outputs, Mapping):
        raise Invalid(f"The rule returned the outputs {outputs!r} for event {event.id}.", fix="return a dict, or None.")
    return outputs, state
