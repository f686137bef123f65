"""Export to Prefect 3: a flow of tasks, each submitted when those before it are; a mapped step is a task an item."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.time import SECOND
from mainspring.deploy.exports.place import Place, caller, cron, delays, head, identifiers, job_name, seconds
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.times import Every, parse_when


def written(graph: Graph, place: Place) -> str:
    """Return the Python file of a pipeline's flow. Run as a script, it serves the flow on its schedule."""
    lines = [head(graph, "Prefect"), *_imports(graph), "", caller(graph, place), "", *_flow(graph)]
    return "\n".join(lines) + "\n"


def _imports(graph: Graph) -> Iterator[str]:
    yield "from prefect import flow, task"
    if any(node.kind == "approval" for node in graph.nodes):
        yield "from prefect.flow_runs import pause_flow_run"


def _flow(graph: Graph) -> Iterator[str]:
    names, function = identifiers(graph), f"pipeline_{job_name(graph)}"
    for node in graph.nodes:
        yield from _task(node, names)
    arguments = ", ".join(f"{name}={value!r}" for name, value in graph.parameters)
    given = ", ".join(f"{name!r}: {name}" for name, _ in graph.parameters)
    yield f"@flow(name={graph.name!r}, validate_parameters=False)"
    yield f"def {function}({arguments}):"
    yield f"    parameters = {{{given}}}"
    for node in graph.nodes:
        yield from (f"    {line}" for line in _submitted(node, names))
    last = ", ".join(f"{node.name!r}: {names[node.name]}" for node in graph.nodes if node.kind == "step")
    yield f"    ended = {{{last}}}"
    yield "    for each in ended.values():"
    yield "        each.wait()  # a result that is an error ends the flow, and steps that wait with it"
    yield "    return {name: each.result() for name, each in ended.items()}"
    yield ""
    yield ""
    yield 'if __name__ == "__main__":'
    limit = "" if graph.limit is None else f", limit={graph.limit}"
    yield f"    {function}.serve({graph.name!r}{_schedule(graph)}{limit})"


def _schedule(graph: Graph) -> str:
    if not graph.schedule:
        return ""
    when = parse_when(graph.schedule)
    return f", interval={when.duration / SECOND:g}" if isinstance(when, Every) else f", cron={cron(graph)!r}"


def _task(node: Node, names: dict[str, str]) -> Iterator[str]:
    options = [f"name={node.name!r}", f"retries={node.retries}"]
    if node.retries:
        options.append(f"retry_delay_seconds={delays(node)[:50]}")  # the last one counts for all further attempts
    if node.group:
        options.append(f"tags=[{node.group!r}]")  # `prefect concurrency-limit create` limits a tag
    mine = names[node.name]
    told = ", ".join(options)
    # Prefect's own time-out cannot end a thread that waits for a process.
    timeout = "" if node.timeout_us is None else f", timeout={seconds(node)}"
    if node.over is None:
        yield f"@task({told})"
        yield f"def {mine}_task(parameters, outcomes):"
        yield f"    return run_step({node.name!r}, parameters, outcomes{timeout})"
    else:
        yield f"@task(name={(node.name + '.items')!r})"
        yield f"def {mine}_items(parameters, outcomes):"
        yield f"    return run_step({node.name!r}, parameters, outcomes, '--items')"
        yield ""
        yield ""
        yield f"@task({told})"
        yield f"def {mine}_task(item, parameters, outcomes):"
        yield f"    return run_step({node.name!r}, parameters, outcomes, '--item', json.dumps(item){timeout})"
        yield ""
        yield ""
        yield f"@task(name={(node.name + '.all')!r})"
        yield f"def {mine}_all(found, each):"
        yield "    return {'items': found, 'each': each}"
    yield ""
    yield ""


def _submitted(node: Node, names: dict[str, str]) -> Iterator[str]:
    mine = names[node.name]
    outcomes = ", ".join(f"{need!r}: {names[need]}" for need in node.needs)
    if node.kind == "approval":
        yield f"{mine} = {mine}_task.submit(parameters, {{{outcomes}}})"
        yield f"{mine}.wait()"
        yield f"if {mine}.state.is_completed() and 'skipped' not in {mine}.result():"
        yield f"    pause_flow_run(timeout=7 * 24 * 3600, key={node.name!r})  # until a person resumes the run"
        return
    if node.over is None:
        yield f"{mine} = {mine}_task.submit(parameters, {{{outcomes}}})"
        return
    yield f"outcomes = {{{outcomes}}}"
    yield f"found = {mine}_items.submit(parameters, outcomes)"
    yield "found.wait()"
    yield "items = found.result()['items'] if found.state.is_completed() else []"
    yield f"each = [{mine}_task.submit(item, parameters, outcomes) for item in items]"
    yield f"{mine} = {mine}_all.submit(found, each)"
