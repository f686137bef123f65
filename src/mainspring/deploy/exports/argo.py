"""Export to Argo Workflows: a Workflow, or a CronWorkflow of a pipeline with a schedule, as YAML that is also JSON.

Each step is a container of the project's image; outcomes are output parameters, mapped steps use `withParam`, and an
approval is a suspended node that a person resumes.
"""

from __future__ import annotations

import json
from typing import Any

from mainspring.deploy.engines.manifest import quantities
from mainspring.deploy.exports.place import FIRST_DELAY_S, LONGEST_DELAY_S, Place, cron, identifiers, seconds
from mainspring.jobs.pipelines.alone import untagged
from mainspring.jobs.pipelines.graph import Graph, Node

_LONGEST_NAME = 52  # of a CronWorkflow
_FOLDER = "/tmp/mainspring"  # noqa: S108  (inside a container of its own)


def written(graph: Graph, place: Place) -> str:
    """Return the manifest of a pipeline.

    Raises:
        Invalid: There is no image.
    """
    return json.dumps(manifest(graph, place), indent=2) + "\n"


def manifest(graph: Graph, place: Place) -> dict[str, Any]:
    """Return the manifest as an object."""
    names = {name: each.replace("_", "-").lower().strip("-") for name, each in identifiers(graph).items()}
    templates = [
        {
            "name": "pipeline",
            "dag": {
                "failFast": False,  # steps that do not need the one that failed go on
                "tasks": [task for node in graph.nodes for task in _tasks(graph, node, names)],
            },
        }
    ]
    templates += [each for node in graph.nodes for each in _templates(graph, node, names, place)]
    spec: dict[str, Any] = {
        "entrypoint": "pipeline",
        "arguments": {"parameters": [{"name": "parameters", "value": untagged(json.dumps(dict(graph.parameters)))}]},
        "templates": templates,
    }
    about = {"annotations": {"workflows.argoproj.io/description": graph.description or graph.name}}
    name = graph.name.replace("_", "-").replace(".", "-").lower()[:_LONGEST_NAME].strip("-")
    schedule = cron(graph)
    if not schedule:
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{name}-", **about},
            "spec": spec,
        }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": name, **about},
        "spec": {
            "schedules": [schedule],
            "timezone": "Etc/UTC",
            "concurrencyPolicy": "Forbid" if graph.limit == 1 else "Allow",
            "workflowSpec": spec,
        },
    }


def _outcome(need: Node, names: dict[str, str]) -> str:
    """Return the outcome of a step as JSON text that Argo fills in."""
    mine = names[need.name]
    if need.kind == "approval":
        return f"{{{{tasks.{mine}-asks.outputs.parameters.outcome}}}}"
    done = f"{{{{tasks.{mine}.outputs.parameters.outcome}}}}"
    if need.over is None:
        return done
    return f'{{"items": {{{{tasks.{mine}-items.outputs.parameters.outcome}}}}, "each": {done}}}'


def _tasks(graph: Graph, node: Node, names: dict[str, str]) -> list[dict[str, Any]]:
    mine = names[node.name]
    needs = [graph.node(need) for need in node.needs]
    depends = {"depends": " && ".join(names[need.name] for need in needs)} if needs else {}
    outcomes = ", ".join(f"{json.dumps(need.name)}: {_outcome(need, names)}" for need in needs)
    scope = f'{{"parameters": {{{{workflow.parameters.parameters}}}}, "outcomes": {{{outcomes}}}}}'
    given = [{"name": "scope", "value": scope}]
    if node.kind == "approval":
        asks = f"{mine}-asks"
        when = f"{{{{tasks.{asks}.outputs.parameters.asks}}}} == true"
        return [
            {"name": asks, "template": asks, "arguments": {"parameters": given}, **depends},
            {"name": mine, "template": mine, "depends": asks, "when": when},
        ]
    if node.over is None:
        return [{"name": mine, "template": mine, "arguments": {"parameters": given}, **depends}]
    found = f"{mine}-items"
    return [
        {"name": found, "template": found, "arguments": {"parameters": given}, **depends},
        {
            "name": mine,
            "template": mine,
            "arguments": {"parameters": [*given, {"name": "item", "value": "{{item}}"}]},
            "withParam": f"{{{{tasks.{found}.outputs.parameters.items}}}}",
            "depends": " && ".join([found, *(names[need.name] for need in needs)]),
        },
    ]


def _templates(graph: Graph, node: Node, names: dict[str, str], place: Place) -> list[dict[str, Any]]:
    mine = names[node.name]
    image = place.container(graph, "argo")
    run = [*place.step(graph), node.name, "--scope", "{{inputs.parameters.scope}}", "--to", _FOLDER]
    if node.kind == "approval":
        return [_template(f"{mine}-asks", run, ["scope"], ["outcome", "asks"], image), {"name": mine, "suspend": {}}]
    more = ["--wrapped-item", "{{inputs.parameters.item}}"] if node.over is not None else []
    inputs = ["scope", *(["item"] if node.over is not None else [])]
    step = _template(mine, [*run, *more], inputs, ["outcome"], image)
    if node.retries:
        backoff = {"duration": f"{FIRST_DELAY_S}s", "factor": "2", "cap": f"{LONGEST_DELAY_S}s"}
        step["retryStrategy"] = {"limit": str(node.retries), "retryPolicy": "Always", "backoff": backoff}
    if node.resources:
        step["container"]["resources"] = quantities(node.resources)
    if node.timeout_us is not None:
        step["activeDeadlineSeconds"] = seconds(node)
    if node.group_limit == 1:
        step["synchronization"] = {"mutexes": [{"name": node.group}]}
    if node.over is None:
        return [step]
    return [_template(f"{mine}-items", [*run, "--items"], ["scope"], ["outcome", "items"], image), step]


def _template(name: str, command: list[str], inputs: list[str], outputs: list[str], image: str) -> dict[str, Any]:
    return {
        "name": name,
        "inputs": {"parameters": [{"name": each} for each in inputs]},
        "outputs": {"parameters": [{"name": each, "valueFrom": {"path": f"{_FOLDER}/{each}"}} for each in outputs]},
        "container": {"image": image, "command": command[:1], "args": command[1:]},
    }
