"""Export to Dagster: a job of ops. Outcomes are the ops' outputs; mapped steps use dynamic outputs."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.deploy.exports.place import (
    FIRST_DELAY_S,
    Place,
    caller,
    cron,
    head,
    identifiers,
    job_name,
    refuse_approvals,
    seconds,
)
from mainspring.jobs.pipelines.graph import Graph, Node


def written(graph: Graph, place: Place) -> str:
    """Return the Python file of a pipeline's job, with `defs` for `dagster dev -f FILE`.

    Raises:
        Invalid: The pipeline waits for an approval.
    """
    refuse_approvals(graph, "dagster")
    lines = [head(graph, "Dagster"), *_imports(), "", caller(graph, place), "", *_ops(graph), *_job(graph)]
    return "\n".join(lines) + "\n"


def _imports() -> Iterator[str]:
    yield "import dagster"
    yield "from dagster import Backoff, DynamicOut, DynamicOutput, Field, Out, RetryPolicy, job, op"


def _ops(graph: Graph) -> Iterator[str]:
    names = identifiers(graph)
    yield "CONFIG = {'parameters': Field(dict, is_required=False, default_value={})}"
    yield ""
    yield ""
    for node in graph.nodes:
        yield from _op(node, names)


def _op(node: Node, names: dict[str, str]) -> Iterator[str]:
    mine = names[node.name]
    arguments = "".join(f", {names[need]}" for need in node.needs)
    outcomes = ", ".join(f"{need!r}: {names[need]}" for need in node.needs)
    policy = f"RetryPolicy(max_retries={node.retries}, delay={FIRST_DELAY_S}, backoff=Backoff.EXPONENTIAL)"
    retry = f", retry_policy={policy}" if node.retries else ""
    labelled = "" if node.group_limit is None else f", tags={{'dagster/concurrency_key': {node.group!r}}}"
    timeout = "" if node.timeout_us is None else f", timeout={seconds(node)}"
    if node.over is None:
        yield f"@op(name={mine!r}, config_schema=CONFIG{retry}{labelled})"
        yield f"def {mine}_op(context{arguments}):"
        yield f"    return run_step({node.name!r}, context.op_config['parameters'], {{{outcomes}}}{timeout})"
        yield ""
        yield ""
        return
    yield "out = {'found': Out(), 'item': DynamicOut()}"
    yield f"@op(name='{mine}_items', config_schema=CONFIG, out=out)"
    yield f"def {mine}_items(context{arguments}):"
    yield f"    found = run_step({node.name!r}, context.op_config['parameters'], {{{outcomes}}}, '--items')"
    yield "    yield dagster.Output(found, 'found')"
    yield "    for at, item in enumerate(found['items']):"
    yield "        yield DynamicOutput(item, mapping_key=str(at), output_name='item')"
    yield ""
    yield ""
    yield f"@op(name={mine!r}, config_schema=CONFIG{retry}{labelled})"
    yield f"def {mine}_op(context, item{arguments}):"
    yield "    more = ('--item', json.dumps(item))"
    yield f"    return run_step({node.name!r}, context.op_config['parameters'], {{{outcomes}}}, *more{timeout})"
    yield ""
    yield ""
    yield f"@op(name='{mine}_all')"
    yield f"def {mine}_all(found, each):"
    yield "    return {'items': found, 'each': each}"
    yield ""
    yield ""


def _job(graph: Graph) -> Iterator[str]:
    names = identifiers(graph)
    function = "pipeline_" + job_name(graph)
    yield f"@job(name={job_name(graph)!r}, description={(graph.description or graph.name)!r})"
    yield f"def {function}():"
    for node in graph.nodes:
        mine = names[node.name]
        given = ", ".join(names[need] for need in node.needs)
        if node.over is None:
            yield f"    {mine} = {mine}_op({given})"
            continue
        more = f", {given}" if given else ""
        yield f"    found, items = {mine}_items({given})"
        yield f"    {mine} = {mine}_all(found, items.map(lambda item: {mine}_op(item{more})).collect())"
    yield ""
    yield ""
    scheduled = cron(graph)
    schedules = ""
    if scheduled:
        yield "schedule = dagster.ScheduleDefinition("
        yield f"    job={function}, cron_schedule={scheduled!r}, execution_timezone='UTC'"
        yield ")"
        schedules = ", schedules=[schedule]"
    yield f"defs = dagster.Definitions(jobs=[{function}]{schedules})"
