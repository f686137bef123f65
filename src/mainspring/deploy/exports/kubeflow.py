"""Export to Kubeflow Pipelines (kfp 2): a pipeline of Python components in the project's image.

A mapped step runs over its items inside its own component: kfp's local runner has no loops. Parameters are
JSON text, as a dictionary of kfp makes each number a float; outcomes are JSON in base64, as kfp puts an output into
another text without escaping it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mainspring.deploy.engines.manifest import quantities
from mainspring.deploy.exports.place import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    Place,
    head,
    identifiers,
    job_name,
    refuse_approvals,
    seconds,
)
from mainspring.jobs.pipelines.graph import Graph, Node

_STEP = """\
@dsl.component(base_image=IMAGE, install_kfp_package=False)
def step(command: list, name: str, parameters: str, outcomes: dict, timeout: int) -> str:
    import base64
    import json
    import subprocess

    before = {each: json.loads(base64.b64decode(outcome)) for each, outcome in outcomes.items()}
    scope = json.dumps({"parameters": json.loads(parameters), "outcomes": before})
    command = [*command, name, "--scope", "-"]
    limit = timeout or None  # s
    done = subprocess.run(command, input=scope, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    return base64.b64encode(done.stdout.encode()).decode()
"""


def written(graph: Graph, place: Place) -> str:
    """Return the Python file of a pipeline; run as a script, it compiles itself to YAML.

    Raises:
        Invalid: The pipeline waits for an approval, or there is no image.
    """
    refuse_approvals(graph, "kubeflow")
    image = place.container(graph, "kubeflow")
    lines = [head(graph, "Kubeflow Pipelines"), "from kfp import compiler, dsl", "", f"IMAGE = {image!r}"]
    lines += [f"STEP = {place.step(graph)!r}", "", "", _STEP, "", *_pipeline(graph)]
    return "\n".join(lines) + "\n"


def _pipeline(graph: Graph) -> Iterator[str]:
    names, function = identifiers(graph), f"pipeline_{job_name(graph)}"
    yield f"@dsl.pipeline(name={graph.name!r}, description={(graph.description or graph.name)!r})"
    yield f"def {function}(parameters: str = {json.dumps(dict(graph.parameters))!r}):"
    for node in graph.nodes:
        yield from (f"    {line}" for line in _task(node, names))
    yield ""
    yield ""
    yield 'if __name__ == "__main__":'
    yield f"    compiler.Compiler().compile({function}, {f'{graph.name}.yaml'!r})"


def _task(node: Node, names: dict[str, str]) -> Iterator[str]:
    mine = names[node.name]
    outcomes = ", ".join(f"{need!r}: {names[need]}.output" for need in node.needs)
    given = f"name={node.name!r}, parameters=parameters, outcomes={{{outcomes}}}, timeout={seconds(node) or 0}"
    yield f"{mine} = step(command=STEP, {given})"
    yield f"{mine}.set_display_name({node.name!r}).set_caching_options({node.cache})"
    asked = quantities(node.resources)
    for name, amount in asked["requests"].items():
        if name == "cpu":
            yield f"{mine}.set_cpu_request({amount!r})"
        elif name == "memory":
            yield f"{mine}.set_memory_request({amount!r}).set_memory_limit({amount!r})"
        else:
            yield f"{mine}.set_accelerator_type({name!r}).set_accelerator_limit({amount})"
    if node.retries:
        delay = f"'{FIRST_DELAY_S}s', backoff_factor=2, backoff_max_duration='{LONGEST_DELAY_S}s'"
        yield f"{mine}.set_retry(num_retries={node.retries}, backoff_duration={delay})"
