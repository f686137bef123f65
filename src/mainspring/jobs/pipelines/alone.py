"""One step at a time, for engines that keep the state of a run themselves.

An engine calls each step with the outcomes of the steps before, and keeps what comes back. An outcome is a JSON object:

* `{"result": VALUE}` of a step that ran, `{"skipped": REASON}` of one that did not;
* `{"items": [...]}` of a mapped step that was asked for its items, with `"skipped"` beside an empty list;
* `{"items": ITEMS, "each": [OUTCOME, ...]}` is how an engine hands a mapped step's outcomes to the steps after it. An
  outcome in it may be JSON text; `{"none": true}` is that of an engine's run over no item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.pipelines.values import Scope, computed, shown
from mainspring.jobs.plain import Plain

Outcome = dict[str, Plain]
Call = Callable[[Node, Mapping[str, Plain]], Plain]  # (step, its arguments) -> its result
NO_ITEM = {"none": True}
_WHOLE = object()


def items_of(graph: Graph, name: str, parameters: Mapping[str, Plain], outcomes: Mapping[str, Any]) -> Outcome:
    """Return the items that a mapped step runs over.

    Raises:
        NotFound: The pipeline has no such step.
        Invalid: The step is not mapped, an outcome is missing, or there is no list or a longer one than allowed.
    """
    node = graph.node(name)
    if node.over is None:
        raise Invalid(f"Step {name!r} of pipeline {graph.name!r} is not mapped.", fix="run it without --items.")
    scope, skipped = _scope(graph, node, parameters, outcomes)
    if skipped:
        return {"items": [], "skipped": skipped}
    items = computed(node.over, scope)
    if not isinstance(items, list):
        raise Invalid(f"Step {name!r} runs over {shown(node.over)}, which is {str(items)[:200]}.", fix="give a list.")
    if len(items) > node.most:
        raise Invalid(
            f"Step {name!r} would run over {len(items):,} items.", fix=f"give at most {node.most:,}, or most=."
        )
    return {"items": items}


def run_alone(
    graph: Graph,
    name: str,
    parameters: Mapping[str, Plain],
    outcomes: Mapping[str, Any],
    call: Call,
    *,
    item: Any = _WHOLE,
) -> Outcome:
    """Run one step and return its outcome. A mapped step without `item` runs over all of its items, in order.

    Args:
        parameters: Those of the run; missing ones have their defaults.
        outcomes: By name, the outcomes of the steps that this one needs.
        call: Calls a step's function.
        item: The element of a mapped step.

    Raises:
        NotFound: The pipeline has no such step.
        Invalid: An outcome is missing or is not one, or as `items_of`.
    """
    node = graph.node(name)
    if node.over is None or item is not _WHOLE:
        scope, skipped = _scope(graph, node, parameters, outcomes, None if item is _WHOLE else item)
        if skipped:
            return {"skipped": skipped}
        return {"result": call(node, {each: computed(value, scope) for each, value in node.inputs})}
    found = items_of(graph, name, parameters, outcomes)
    if "skipped" in found:
        return {"skipped": found["skipped"]}
    results = []
    for each in found["items"]:
        scope, _ = _scope(graph, node, parameters, outcomes, each)
        results.append(call(node, {name: computed(value, scope) for name, value in node.inputs}))
    return {"result": results}


def _scope(
    graph: Graph, node: Node, parameters: Mapping[str, Plain], outcomes: Mapping[str, Any], item: Plain = None
) -> tuple[Scope, str]:
    """Return what the step's values are computed from, and why the step is skipped, empty if it is not."""
    results: dict[str, Plain] = {}
    for need in node.needs:
        if need not in outcomes:
            raise Invalid(f"Step {node.name!r} needs the outcome of {need!r}.", fix="give it among the outcomes.")
        outcome = whole(outcomes[need], need)
        if "result" not in outcome:
            return Scope(), f"{need} {'was skipped' if 'skipped' in outcome else 'failed'}"
        results[need] = outcome["result"]
    scope = Scope(graph.bound(parameters), results, item)
    unmet = next((value for value in node.when if computed(value, scope) is not True), None)
    return scope, "" if unmet is None else f"{shown(unmet)} is not true"


def failed(outcomes: Mapping[str, Any]) -> list[str]:
    """Return the steps that failed.

    Args:
        outcomes: By name; of a step that failed `{"failed": True}`, for engines in which a failure is an outcome.
    """
    return [name for name, outcome in outcomes.items() if "failed" in whole(outcome, name)]


def untagged(text: str) -> str:
    """Return JSON text without `{{`, which engines that fill in texts would take for one of their own tags."""
    return text.replace("{{", r"\u007b\u007b")


def _unwrapped(outcome: Any) -> Any:
    """Return an outcome that engines hand over as JSON text, or as the text of such a text."""
    while isinstance(outcome, str):
        outcome = json.loads(outcome)
    return outcome


def whole(outcome: Any, name: str) -> Outcome:
    """Return the outcome of a step, of a mapped one that of all its items."""
    match outcome:
        case {"items": {"skipped": why}, "each": list()}:
            return {"skipped": why}
        case {"items": dict(), "each": list(each)}:
            outcomes = [_unwrapped(one) for one in each]
            if any("failed" in one for one in outcomes):
                return {"failed": True}
            return {"result": [whole(one, name)["result"] for one in outcomes if one != NO_ITEM]}
        case {"skipped": str()} | {"failed": True} | {"result": _}:
            return dict(outcome)
    raise Invalid(f"{str(outcome)[:200]} is not the outcome of step {name!r}.", fix="give what the step printed.")
