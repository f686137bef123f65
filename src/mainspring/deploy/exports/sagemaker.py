"""Export to SageMaker Pipelines: a pipeline definition in JSON, whose steps are processing jobs in the project's image.

A step writes its outcome into a folder of the execution in a bucket, and a step that needs it is given it as an input
(https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps.html). Parameters of an execution: `parameters`,
those of the pipeline as JSON; `folder`, a place in a bucket; `role`, which the jobs have; `instance`, their machines.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.exports.place import FIRST_DELAY_S, Place, identifiers, refuse_approvals, seconds
from mainspring.jobs.pipelines.graph import Graph, Node

_VERSION = "2020-12-01"
_INSTANCE, _VOLUME_GIB = "ml.m5.large", 30
_ROOT = "/opt/ml/processing"  # that SageMaker fills and collects
OUTCOMES, OUTCOME = f"{_ROOT}/outcomes", f"{_ROOT}/outcome"
_LONGEST_ARGUMENT, _MOST_INPUTS, _LONGEST_NAME = 256, 10, 64
_SCOPE = ('{"parameters": ', "}")
# Errors after which SageMaker starts a step again. It never does after one of the container's.
_RETRIED = ["Step.SERVICE_FAULT", "Step.THROTTLING", "SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR"]


def written(graph: Graph, place: Place) -> str:
    """Return the definition of a pipeline.

    Raises:
        Invalid: The pipeline waits for an approval, there is no image, or a step is more than SageMaker takes.
    """
    return json.dumps(definition(graph, place), indent=2) + "\n"


def definition(graph: Graph, place: Place) -> dict[str, Any]:
    """Return the definition as an object."""
    refuse_approvals(graph, "sagemaker")
    given = json.dumps(dict(graph.parameters))
    _check_argument(graph, "its parameters", "".join((_SCOPE[0], given, _SCOPE[1])))
    names = identifiers(graph)
    return {
        "Version": _VERSION,
        "Parameters": [
            {"Name": "parameters", "Type": "String", "DefaultValue": given},
            {"Name": "folder", "Type": "String"},
            {"Name": "role", "Type": "String"},
            {"Name": "instance", "Type": "String", "DefaultValue": _INSTANCE},
        ],
        "Steps": [_step(graph, node, names, place) for node in graph.nodes],
    }


def pipeline_name(graph: Graph) -> str:
    """Return the pipeline's name in the letters that SageMaker takes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", graph.name).strip("-")


def _step(graph: Graph, node: Node, names: dict[str, str], place: Place) -> dict[str, Any]:
    mine = names[node.name]
    if len(mine) > _LONGEST_NAME or len(node.needs) > _MOST_INPUTS:
        raise Invalid(
            f"Step {node.name!r} of pipeline {graph.name!r} has a name of {len(mine)} characters and needs "
            f"{len(node.needs)} steps; SageMaker takes {_LONGEST_NAME} and {_MOST_INPUTS}.",
            fix="shorten its name, or gather what it needs in a step before.",
        )
    command = [*place.step(graph), node.name, "--outcomes", OUTCOMES, "--to", OUTCOME, "--scope"]
    for each in command:
        _check_argument(graph, node.name, each)
    timeout, retry = seconds(node), {"ExceptionType": _RETRIED, "IntervalSeconds": FIRST_DELAY_S, "BackoffRate": 2.0}
    return {
        "Name": mine,
        "Type": "Processing",
        "Arguments": {
            "RoleArn": _parameter("role"),
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": _parameter("instance"),
                    "InstanceCount": 1,
                    "VolumeSizeInGB": _VOLUME_GIB,
                }
            },
            "AppSpecification": {
                "ImageUri": place.container(graph, "sagemaker"),
                "ContainerEntrypoint": list(place.command),
                "ContainerArguments": [
                    *command[len(place.command) :],
                    _joined("", _SCOPE[0], _parameter("parameters"), _SCOPE[1]),
                ],
            },
            "ProcessingInputs": [_input(need, names[need]) for need in node.needs],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "outcome",
                        "S3Output": {"S3Uri": _kept(mine), "LocalPath": OUTCOME, "S3UploadMode": "EndOfJob"},
                    }
                ]
            },
            **({"StoppingCondition": {"MaxRuntimeInSeconds": timeout}} if timeout is not None else {}),
        },
        **({"DependsOn": [names[need] for need in node.needs]} if node.needs else {}),
        **({"RetryPolicies": [{**retry, "MaxAttempts": node.retries}]} if node.retries else {}),
    }


def _input(need: str, name: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": _kept(name),
            "LocalPath": f"{OUTCOMES}/{need}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }


def _kept(name: str) -> dict[str, Any]:
    """Return the place of a step's outcome: of this execution alone."""
    return _joined("/", _parameter("folder"), {"Get": "Execution.PipelineExecutionId"}, name)


def _parameter(name: str) -> dict[str, str]:
    return {"Get": f"Parameters.{name}"}


def _joined(on: str, *values: Any) -> dict[str, Any]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def _check_argument(graph: Graph, what: str, text: str) -> None:
    if len(text) > _LONGEST_ARGUMENT:
        raise Invalid(
            f"Pipeline {graph.name!r}: {what} would be an argument of {len(text)} characters, and SageMaker takes "
            f"{_LONGEST_ARGUMENT}.",
            fix="shorten the names, or give large parameters as a file in a bucket.",
        )
