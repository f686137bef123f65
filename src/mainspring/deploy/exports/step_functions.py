"""Export to AWS Step Functions: a state machine in the Amazon States Language.

Steps that may run at the same time are branches of one Parallel state; mapped steps are Map states. Each task invokes
one Lambda function, named in the execution's input, that runs a step and returns its outcome; an approval waits for a
task token. The input is `{"parameters": {}, "function": NAME OR ARN}`.

A step that fails is an outcome too, since a branch that fails would end those beside it. The last state fails for it.
"""

from __future__ import annotations

import json
from typing import Any

from mainspring.deploy.exports.place import FIRST_DELAY_S, LONGEST_DELAY_S, Place, identifiers, seconds
from mainspring.jobs.pipelines.graph import Graph, Node

_INVOKE = "arn:aws:states:::lambda:invoke"


def written(graph: Graph, place: Place) -> str:
    """Return the state machine of a pipeline."""
    del place  # the Lambda function is named in the execution's input
    return json.dumps(machine(graph), indent=2) + "\n"


def machine(graph: Graph) -> dict[str, Any]:
    """Return the state machine as an object."""
    names = identifiers(graph)
    levels = _levels(graph)
    where = {node.name: f"$.level{level}.{names[node.name]}" for level, nodes in enumerate(levels) for node in nodes}
    states: dict[str, Any] = {}
    for level, nodes in enumerate(levels):
        following = {"Next": f"Level {level + 1}" if level + 1 < len(levels) else "End"}
        states[f"Level {level}"] = {
            "Type": "Parallel",
            "Branches": [_branch(graph, node, where) for node in nodes],
            "ResultSelector": {f"{names[node.name]}.$": f"$[{at}]" for at, node in enumerate(nodes)},
            "ResultPath": f"$.level{level}",
            **following,
        }
    states["End"] = {
        "Type": "Task",
        "Resource": _INVOKE,
        "Parameters": {
            "FunctionName.$": "$.function",
            "Payload": {"pipeline": graph.name, "ended": {f"{name}.$": path for name, path in where.items()}},
        },
        "ResultPath": None,
        "End": True,
    }
    return {"Comment": graph.description or graph.name, "StartAt": "Level 0", "States": states}


def _levels(graph: Graph) -> list[list[Node]]:
    """Return the nodes by the length of the longest way to them."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        depth[node.name] = 1 + max((depth[need] for need in node.needs), default=-1)
    return [[node for node in graph.nodes if depth[node.name] == level] for level in range(max(depth.values()) + 1)]


def _branch(graph: Graph, node: Node, where: dict[str, str]) -> dict[str, Any]:
    outcomes = {f"{need}.$": where[need] for need in node.needs}
    payload = {
        "pipeline": graph.name,
        "step": node.name,
        "scope": {"parameters.$": "$.parameters", "outcomes": outcomes},
    }
    if node.kind == "approval":
        return _only(
            node,
            {
                "Type": "Task",
                "Resource": f"{_INVOKE}.waitForTaskToken",
                "Parameters": {
                    "FunctionName.$": "$.function",
                    "Payload": {**payload, "approval": node.by, "token.$": "$$.Task.Token"},
                },
                "End": True,
            },
        )
    if node.over is None:
        return _only(node, _task(node, payload))
    items = f"{node.name} items"
    each = {
        "Type": "Map",
        "ItemsPath": "$.found.all.items",
        "ItemSelector": {
            "parameters.$": "$.parameters",
            "function.$": "$.function",
            **{f"{name.partition('.')[0]}.$": f"$.{name.partition('.')[0]}" for name in _roots(outcomes)},
            "item.$": "$$.Map.Item.Value",
        },
        "ItemProcessor": _only(node, _task(node, {**payload, "item.$": "$.item"})),
        "ResultPath": "$.each",
        "Next": f"{node.name} all",
    }
    return {
        "StartAt": items,
        "States": {
            items: {
                **_task(node, {**payload, "items": True}, end=False),
                **_caught(node),
                "ResultPath": "$.found",
                "Next": f"{node.name} each",
            },
            f"{node.name} each": each,
            f"{node.name} all": {
                "Type": "Pass",
                "Parameters": {"items.$": "$.found.all", "each.$": "$.each"},
                "End": True,
            },
            **_failure(node),
        },
    }


def _roots(outcomes: dict[str, str]) -> list[str]:
    """Return the fields of the state's input that outcomes are read from."""
    return sorted({path.split(".")[1] for path in outcomes.values()})


def _only(node: Node, state: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": node.name, "States": {node.name: {**state, **_caught(node)}, **_failure(node)}}


def _caught(node: Node) -> dict[str, Any]:
    return {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": f"{node.name} failed"}]}


def _failure(node: Node) -> dict[str, Any]:
    return {f"{node.name} failed": {"Type": "Pass", "Result": {"failed": True}, "End": True}}


def _task(node: Node, payload: dict[str, Any], *, end: bool = True) -> dict[str, Any]:
    state: dict[str, Any] = {
        "Type": "Task",
        "Resource": _INVOKE,
        "Parameters": {"FunctionName.$": "$.function", "Payload": payload},
        **({"OutputPath": "$.Payload"} if end else {"ResultSelector": {"all.$": "$.Payload"}}),
    }
    if node.timeout_us is not None:
        state["TimeoutSeconds"] = seconds(node)
    if node.retries:
        state["Retry"] = [
            {
                "ErrorEquals": ["States.ALL"],
                "IntervalSeconds": FIRST_DELAY_S,
                "BackoffRate": 2.0,
                "MaxDelaySeconds": LONGEST_DELAY_S,
                "MaxAttempts": node.retries,
            }
        ]
    return {**state, "End": True} if end else state
