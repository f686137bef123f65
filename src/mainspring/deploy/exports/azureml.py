"""Export to Azure Machine Learning: a pipeline job of command jobs in the project's image; JSON, which is YAML.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-pipeline. A step reads the outcomes of others from
files that Azure mounts, and writes its own into one. Azure puts values into the text of a command, so parameters are
given in base64. A command job is not tried again by Azure: the program in it does that.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping
from typing import Any

from mainspring.deploy.exports.place import Place, delays, identifiers, refuse_approvals, seconds
from mainspring.jobs.pipelines.graph import Graph, Node

_PROGRAM = """\
import base64, json, subprocess, sys, time
step, delays, limit, parameters, outcome, *rest = sys.argv[1:]
at = rest.index("--")
pairs = (each.split("=", 1) for each in rest[:at])
before = {name: json.load(open(path)) for name, path in pairs}
scope = json.dumps({"parameters": json.loads(base64.b64decode(parameters)), "outcomes": before})
for delay in [*json.loads(delays), None]:
    try:
        command = [*rest[at + 1:], step, "--scope", "-"]
        limit_s = float(limit) or None
        done = subprocess.run(command, input=scope, stdout=subprocess.PIPE, text=True, check=True, timeout=limit_s)
        break
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if delay is None:
            sys.exit(f"{step} failed: {error}")
        time.sleep(delay)
with open(outcome, "w") as file:
    file.write(done.stdout)
"""


def written(graph: Graph, place: Place) -> str:
    """Return the document of a pipeline job, for `az ml job create --file`.

    Raises:
        Invalid: The pipeline waits for an approval, or there is no image.
    """
    refuse_approvals(graph, "azureml")
    image, names = place.container(graph, "azureml"), {name: each.lower() for name, each in identifiers(graph).items()}
    parameters = base64.b64encode(json.dumps(dict(graph.parameters)).encode()).decode()
    document = {
        "$schema": "https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json",
        "type": "pipeline",
        "display_name": graph.name,
        "description": graph.description or graph.name,
        "settings": {"default_compute": "azureml:serverless", "continue_on_step_failure": True},
        "inputs": {"parameters": parameters},
        "jobs": {names[node.name]: _job(node, names, image, place.step(graph)) for node in graph.nodes},
    }
    return json.dumps(document, indent=2) + "\n"


def _job(node: Node, names: Mapping[str, str], image: str, step: list[str]) -> dict[str, Any]:
    inputs: dict[str, Any] = {"parameters": "${{parent.inputs.parameters}}"}
    for need in node.needs:
        path = f"${{{{parent.jobs.{names[need]}.outputs.outcome}}}}"
        inputs[names[need]] = {"type": "uri_file", "path": path}
    before = " ".join(f'{shlex.quote(f"{need}=")}"${{{{inputs.{names[need]}}}}}"' for need in node.needs)
    words = ["python", "-c", _PROGRAM, node.name, json.dumps(delays(node)), str(seconds(node) or 0)]
    files = '"${{inputs.parameters}}" "${{outputs.outcome}}"'
    return {
        "type": "command",
        "display_name": node.name,
        "environment": {"image": image},
        "command": f"{shlex.join(words)} {files} {before} -- {shlex.join(step)}",
        "inputs": inputs,
        "outputs": {"outcome": {"type": "uri_file"}},
    }
