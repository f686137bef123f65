"""`mainspring pipelines`: graphs of steps that run in the background."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands import pipelines_outside
from mainspring.cli.commands.jobs import PRIORITY
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from mainspring.jobs.model import Job
    from mainspring.operations.pipelines.control import RunState, StepState

_MARKS = {"done": "✓", "failed": "✗", "cancelled": "✗", "skipped": "-", "running": "●", "queued": "○", "waiting": "·"}
_MANY, _FIRST, _LONG = 40, 10, 2_000  # steps of a long list, steps shown of each status, characters of a result
_WAIT = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until the run has ended or asks for approval; the exit code reports its result.",
)
_HERE = click.option("--here", is_flag=True, help="Run the steps from this command, for a project that is not up.")


@click.group("pipelines", cls=Group)
def command() -> None:
    """Pipelines: graphs of steps. A run resumes after a kill, and no finished step is repeated."""


@make("list")
def list_(call: Call) -> None:
    """List the project's pipelines, with the newest run of each."""
    from mainspring.operations.pipelines.control import runs

    found: list[dict[str, Any]] = []
    for name, pipeline in call.project.definitions.pipelines.items():
        newest = next(iter(runs(call.project, name, limit=1)), None)
        graph = pipeline.graph
        found.append(
            {
                "name": name,
                "description": graph.description,
                "steps": len(graph.nodes),
                "priority": graph.priority,
                "schedule": graph.schedule,
                "triggers": [{"kind": each.kind, "name": each.name} for each in graph.triggers],
                "parameters": dict(graph.parameters),
                "newest": None if newest is None else _run_document(newest),
            }
        )

    def show(console: Console) -> None:

        if not found:
            console.print(
                "The project has no pipelines: put @ms.pipeline above a function. See docs/howto/pipelines.md."
            )
            return
        rows = []
        for each in found:
            starts = [each["schedule"]] if each["schedule"] else []
            starts += [f"{trigger['kind']} {trigger['name']}" for trigger in each["triggers"]]
            newest = "" if each["newest"] is None else f"{each['newest']['id']} {each['newest']['status']}"
            rows.append(
                (
                    each["name"],
                    str(each["steps"]),
                    str(each["priority"]),
                    ", ".join(starts) or "by hand",
                    newest,
                )
            )
        columns = ("pipeline", "steps", "priority", "starts", "newest run")
        show_records(console, columns, rows, right=("steps", "priority"), folded=("starts",))

    call.result(found, show)


@make("run", charges=True)
@click.argument("name")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--no-cache", is_flag=True, help="Run every step, also where a remembered result is at hand.")
@click.option("--key", help="Idempotency key: two runs of a pipeline with the same key are one run.")
@click.option("--priority", type=PRIORITY, help="Head start before other work, in hours; by default the pipeline's.")
@_WAIT
@_HERE
def run(
    call: Call,
    *,
    name: str,
    parameters: tuple[str, ...],
    no_cache: bool,
    key: str | None,
    priority: int | None,
    wait: bool,
    here: bool,
) -> int:
    """Start a run of pipeline NAME. A parameter's value is JSON or text, of its default's type."""
    from mainspring.operations.pipelines import control

    defaults = dict(call.project.definitions.pipeline(name).parameters)
    given = dict(_parameter(each, defaults) for each in parameters)
    job = control.start(call.project, name, given, cache=not no_cache, key=key, priority=priority)
    return _follow(call, job, wait=wait, here=here)


@make("status")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--pipeline", help="Of the newest run of this pipeline.")
@click.option("--all", "whole", is_flag=True, help="Show every step, also of a run with many.")
def status(call: Call, *, run_id: str | None, pipeline: str | None, whole: bool) -> None:
    """Show a run and its steps; without RUN, the newest of all. Of many steps, those that need attention come first."""
    from mainspring.operations.pipelines.control import state

    found = state(call.project, run_id or _newest(call, pipeline))
    call.result(_document(found), lambda console: _show(console, found, whole=whole))


@make("retry")
@click.argument("run_id", metavar="RUN")
@click.argument("step", required=False)
@_WAIT
@_HERE
def retry(call: Call, *, run_id: str, step: str | None, wait: bool, here: bool) -> int:
    """Run the failed steps of RUN again, or only STEP, and what follows. Finished steps are not repeated."""
    from mainspring.operations.pipelines import control

    return _follow(call, control.retry(call.project, run_id, step), wait=wait, here=here)


@make("approve")
@click.argument("run_id", metavar="RUN")
@click.argument("name")
@click.option("--note", default="", help="Reason, for the audit log.")
def approve(call: Call, *, run_id: str, name: str, note: str) -> None:
    """Approve NAME of RUN, as the user of this command."""
    from mainspring.operations.pipelines import control

    step = control.approve(call.project, run_id, name, note=note)
    told = f"{name} is approved by {', '.join(step.approved_by)}."
    call.result(_step_document(step), lambda console: _print(console, told))


@make("cancel")
@click.argument("run_id", metavar="RUN")
def cancel(call: Call, *, run_id: str) -> None:
    """Cancel RUN: waiting steps at once; the processes of running steps are ended."""
    from mainspring.operations.pipelines import control

    job = control.cancel(call.project, run_id)
    call.result(_run_document(job), lambda console: _print(console, f"{job.handler} {job.id}: {job.status}"))


@make("logs")
@click.argument("run_id", metavar="RUN")
@click.argument("step", required=False)
def logs(call: Call, *, run_id: str, step: str | None) -> None:
    """Show what the steps of RUN printed, or only STEP (`fit`, or `fit[3]` of a mapped step)."""
    from mainspring.jobs.logs import plain
    from mainspring.operations.pipelines import control

    found = control.logs(call.project, run_id, step)

    def show(console: Console) -> None:
        if not found:
            _print(console, "No log is here. One of another machine comes when the step's attempt has ended.")
        for name, text in found.items():
            if step is None:
                console.print(f"[bold]{name.replace('[', chr(92) + '[')}[/]", highlight=False)
            _print(console, plain(text).rstrip("\n"))

    call.result(found, show)


@make("graph")
@click.argument("name")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
def graph(call: Call, *, name: str, mermaid: bool) -> None:
    """Show the graph of pipeline NAME: each step with those that it needs."""
    from mainspring.jobs.pipelines.values import shown

    found = call.project.definitions.pipeline(name)

    def show(console: Console) -> None:
        if mermaid:
            _print(console, found.mermaid())
            return
        depth: dict[str, int] = {}
        for node in found.nodes:
            depth[node.name] = max((depth[need] + 1 for need in node.needs), default=0)
            told = [] if not node.needs else [f"← {', '.join(node.needs)}"]
            told += [] if node.over is None else [f"for each of {shown(node.over)}"]
            told += [f"if {shown(each)}" for each in node.when]
            told += [f"by {node.by}"] if node.kind == "approval" else []
            mark = "◇" if node.kind == "approval" else "■"
            _print(console, f"{'  ' * depth[node.name]}{mark} {node.name}  {'; '.join(told)}".rstrip())

    call.result(found.document(), show)


@make("run-step")
@click.argument("run_id", metavar="RUN")
@click.argument("step")
@click.option("--pdb", is_flag=True, help="Start the debugger where the step raises an error.")
def run_step(call: Call, *, run_id: str, step: str, pdb: bool) -> None:
    """Run STEP of RUN in this process, with its inputs in that run. The result is printed and not recorded."""
    from mainspring.core.errors import MainspringError
    from mainspring.operations.pipelines import control

    try:
        result = control.run_step(call.project, run_id, step)
    except Exception as error:
        if pdb:
            import pdb as debugger

            debugger.post_mortem(error.__traceback__)
        if isinstance(error, MainspringError):
            raise
        raise control.failed(call.project, step, error) from error
    call.result(result, lambda console: _print(console, json.dumps(result, indent=1, ensure_ascii=False)))


def _follow(call: Call, job: Job, *, wait: bool, here: bool) -> int:
    """End a command that began a run: at once, or when the run has ended or asks for approval."""
    from mainspring.operations.jobs.queue import worker_is_up
    from mainspring.operations.pipelines import control

    up = here or worker_is_up(call.project)
    if (wait and up) or here:
        with call.progress() as progress:

            def told(found: RunState) -> None:
                busy = [step.name for step in found.steps if step.status == "running"]
                note = ", ".join(busy[:3]) + (f" and {len(busy) - 3} more" if len(busy) > 3 else "")
                held = next((step.note for step in found.steps if step.note and step.status == "queued"), "")
                progress.update(found.graph.name, found.done, len(found.graph.nodes), note or held)

            control.run_here(call.project, job.id, told) if here else control.wait(call.project, job.id, told)
    found = control.state(call.project, job.id)

    def show(console: Console) -> None:
        _show(console, found)
        if not up and found.job.status in ("queued", "waiting"):
            _print(console, "No worker is running: start one with `mainspring up`, or repeat the command with --here.")

    call.result(_document(found), show)
    return exits.INTERNAL if found.job.status in ("failed", "cancelled", "skipped") else exits.OK


def _newest(call: Call, pipeline: str | None) -> str:
    from mainspring.core.errors import NotFound
    from mainspring.operations.pipelines.control import runs

    known = call.project.definitions.pipelines
    names = [call.project.definitions.pipeline(pipeline).name] if pipeline is not None else list(known)
    found = sorted(
        (job for name in names for job in runs(call.project, name, limit=1)), key=lambda job: job.enqueued_at
    )
    if not found:
        raise NotFound("No pipeline has run yet.", fix="start one: `mainspring pipelines run NAME`.")
    return found[-1].id


def _parameter(text: str, defaults: Mapping[str, Any]) -> tuple[str, Any]:
    """Return a parameter's name and value; of one whose default is a text, the value as it is written."""
    from mainspring.core.errors import Invalid

    name, sign, value = text.partition("=")
    if not sign:
        raise Invalid(f"{text!r} is not a parameter.", fix="write NAME=VALUE, such as days=30.")
    if isinstance(defaults.get(name), str):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _document(found: RunState) -> dict[str, Any]:
    return {
        **_run_document(found.job),
        "teams": list(found.teams),
        "teams_why": found.teams_why,
        "parameters": dict(found.parameters),
        "result": found.job.result,
        "counts": found.counts,
        "steps": [_step_document(step) for step in found.steps],
    }


def _run_document(job: Job) -> dict[str, Any]:
    whole = dated(job, "enqueued_at", "started_at", "ended_at")
    names = ("id", "status", "priority", "schedule", "key", "enqueued_at", "started_at", "ended_at", "error")
    return {"pipeline": job.handler.partition(":")[2], **{name: whole[name] for name in names}}


def _step_document(step: StepState) -> dict[str, Any]:
    return dated(step, "started_at", "ended_at")


def _show(console: Console, found: RunState, *, whole: bool = False) -> None:
    _print(console, f"{found.graph.name} {found.job.id}: {found.job.status}")
    if found.teams:
        _print(console, f"Paid by {', '.join(found.teams)}: {found.teams_why}")
    if whole or len(found.steps) <= _MANY:
        for step in found.steps:
            _show_step(console, found, step)
    else:
        _show_many(console, found)
    if found.job.error and found.job.status in ("failed", "cancelled"):
        _print(console, found.job.error)
    if found.job.status == "done" and found.job.result is not None:
        text = json.dumps(found.job.result, ensure_ascii=False)
        _print(console, f"Result: {text if whole or len(text) <= _LONG else text[:_LONG] + ' …'}")


def _show_step(console: Console, found: RunState, step: StepState, indent: str = "") -> None:
    took = ""
    if step.started_at is not None and step.ended_at is not None:
        took = f"{(step.ended_at - step.started_at) / 1e6:.1f} s"
    told = [each for each in (took, step.cache, step.error or "", step.note) if each]
    if _asks(step):
        told.append(f"approve it: mainspring pipelines approve {found.job.id} {step.name}")
    indent = indent or ("    " if "[" in step.name else "  ")
    _print(console, f"{indent}{_MARKS[step.status]} {step.name:<24} {step.status:<9} {'  '.join(told)}".rstrip())


def _show_many(console: Console, found: RunState) -> None:
    """Show the number of steps by status, and of each status that needs attention the first steps."""
    by_status: dict[str, list[StepState]] = {}
    for step in found.steps:
        by_status.setdefault("asks" if _asks(step) else step.status.value, []).append(step)
    order = ("failed", "asks", "running", "cancelled", "queued", "waiting", "skipped", "done")
    for status in (each for each in order if each in by_status):
        steps = by_status[status]
        mark = _MARKS["waiting" if status == "asks" else status]
        _print(console, f"  {mark} {len(steps):,} {'ask for approval' if status == 'asks' else status}")
        if status in ("failed", "asks", "running", "cancelled"):
            for step in steps[:_FIRST]:
                _show_step(console, found, step, "    ")
            if len(steps) > _FIRST:
                _print(console, f"    and {len(steps) - _FIRST:,} more")
    _print(console, f"All {len(found.steps):,} steps: mainspring pipelines status {found.job.id} --all")


def _asks(step: StepState) -> bool:
    return step.kind == "approval" and step.status == "waiting" and step.started_at is not None


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


for _command in (list_, run, status, retry, approve, cancel, logs, graph, run_step):
    command.add_command(_command)
command.add_command(pipelines_outside.export)
command.add_command(pipelines_outside.step)
