"""Export to Apache Airflow 3: a DAG file. Outcomes travel as XComs; mapped steps are mapped task instances."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.time import SECOND
from mainspring.deploy.exports.place import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    Place,
    caller,
    cron,
    head,
    identifiers,
    job_name,
    seconds,
)
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.times import Every, parse_when


def written(graph: Graph, place: Place) -> str:
    """Return the DAG file of a pipeline."""
    return "\n".join([head(graph, "Airflow"), *_imports(graph), "", caller(graph, place), "", *_dag(graph)]) + "\n"


def _imports(graph: Graph) -> Iterator[str]:
    yield "from datetime import datetime, timedelta, timezone"
    yield ""
    yield "from airflow.sdk import dag, get_current_context, task"
    if any(node.kind == "approval" for node in graph.nodes):
        yield "from airflow.providers.standard.operators.hitl import ApprovalOperator"


def _schedule(graph: Graph) -> str:
    if not graph.schedule:
        return "None"
    text = cron(graph)
    if text:
        return repr(text)
    when = parse_when(graph.schedule)
    return f"timedelta(seconds={when.duration / SECOND:g})" if isinstance(when, Every) else repr(graph.schedule)


def _dag(graph: Graph) -> Iterator[str]:
    limit = "" if graph.limit is None else f", max_active_runs={graph.limit}"
    names, function = identifiers(graph), f"pipeline_{job_name(graph)}"
    yield f"@dag(dag_id={graph.name!r}, schedule={_schedule(graph)}, catchup=False, params=DEFAULTS{limit},"
    yield "     start_date=datetime(2020, 1, 1, tzinfo=timezone.utc))"
    yield f"def {function}():"
    yield "    def parameters():"
    yield '        return dict(get_current_context()["params"])'
    yield ""
    for node in graph.nodes:
        yield from (f"    {line}" if line else "" for line in _task(node, names))
    yield ""
    yield ""
    yield f"{function}()"


def _task(node: Node, names: dict[str, str]) -> Iterator[str]:
    mine = names[node.name]
    outcomes = ", ".join(f"{need!r}: {names[need]}" for need in node.needs)
    arguments = ", ".join(names[need] for need in node.needs)
    if node.kind == "approval":
        yield from _approval(node, mine, arguments, outcomes)
        return
    options = [f"task_id={node.name!r}", f"retries={node.retries}"]
    if node.retries:
        options += [f"retry_delay=timedelta(seconds={FIRST_DELAY_S})", "retry_exponential_backoff=2.0"]
        options.append(f"max_retry_delay=timedelta(seconds={LONGEST_DELAY_S})")
    if node.timeout_us is not None:
        options.append(f"execution_timeout=timedelta(seconds={seconds(node)})")
    if node.group_limit is not None:
        options.append(f"max_active_tis_per_dag={node.group_limit}")
    if node.over is not None:
        yield from _mapped(node, mine, arguments, outcomes, ", ".join(options))
        return
    yield f"@task({', '.join(options)})"
    yield f"def {mine}_task({arguments}):"
    yield f"    return run_step({node.name!r}, parameters(), {{{outcomes}}})"
    yield ""
    yield f"{mine} = {mine}_task({arguments})"
    yield ""


def _approval(node: Node, mine: str, arguments: str, outcomes: str) -> Iterator[str]:
    # A run that is not to ask skips the operator, and with it what waits for the approval.
    yield f"@task.short_circuit(task_id={(node.name + '.asks')!r}, ignore_downstream_trigger_rules=False)"
    yield f"def {mine}_asks({arguments}):"
    yield f"    return 'skipped' not in run_step({node.name!r}, parameters(), {{{outcomes}}})"
    yield ""
    yield f"@task(task_id={(node.name + '.approved')!r})"
    yield f"def {mine}_approved():"
    yield "    return {'result': None}"
    yield ""
    yield f"{mine}_operator = ApprovalOperator("
    yield f"    task_id={node.name!r}, subject={f'Approve {node.name} of the run?'!r}, fail_on_reject=True"
    yield ")"
    yield f"{mine} = {mine}_approved()"
    yield f"{mine}_asks({arguments}) >> {mine}_operator >> {mine}"
    yield ""


def _mapped(node: Node, mine: str, arguments: str, outcomes: str, options: str) -> Iterator[str]:
    yield f"@task(task_id={(node.name + '.items')!r})"
    yield f"def {mine}_items({arguments}):"
    yield f"    return run_step({node.name!r}, parameters(), {{{outcomes}}}, '--items')"
    yield ""
    yield f"@task(task_id={(node.name + '.list')!r})"
    yield f"def {mine}_list(found):"
    yield "    return found['items']"
    yield ""
    yield f"@task({options})"
    yield f"def {mine}_task(item{', ' if arguments else ''}{arguments}):"
    yield f"    return run_step({node.name!r}, parameters(), {{{outcomes}}}, '--item', json.dumps(item))"
    yield ""
    yield f"@task(task_id={(node.name + '.all')!r}, trigger_rule='none_failed')"
    yield f"def {mine}_all(found, each):"
    yield "    return {'items': found, 'each': list(each or [])}"
    yield ""
    given = ", ".join(f"{names}={names}" for names in arguments.split(", ") if names)
    yield f"{mine}_found = {mine}_items({arguments})"
    mapped = f"{mine}_task.partial({given})" if given else f"{mine}_task"
    yield f"{mine} = {mine}_all({mine}_found, {mapped}.expand(item={mine}_list({mine}_found)))"
    yield ""
