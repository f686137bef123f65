"""`mainspring jobs`: background and scheduled work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.ids import NEWEST, whole_id
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.jobs.model import Job

_STATUSES = ("waiting", "queued", "running", "done", "failed", "cancelled", "skipped")
_WAIT = click.option("--wait", is_flag=True, help="Wait until the job has ended; the exit code reports its result.")
_HERE = click.option(
    "--here", is_flag=True, help="Run the job in this process, with all other due jobs, until it has ended."
)


PRIORITY = click.IntRange(-100, 100)


@click.group("jobs", cls=Group)
def command() -> None:
    """Background and scheduled work. A job resumes after a kill."""


@make("list")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(_STATUSES),
    help="Only jobs with this status; may be repeated.",
)
@click.option("--job", "names", multiple=True, help="Only jobs of this name; may be repeated.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_(call: Call, *, statuses: tuple[str, ...], names: tuple[str, ...], limit: int) -> None:
    """List jobs, newest first. A `failed` job is not attempted again before `retry`."""
    from mainspring.jobs.model import Status

    found = call.project.jobs.find(statuses=[Status(each) for each in statuses], handlers=names, limit=limit)

    def show(console: Console) -> None:

        if not found:
            console.print("No job matches." if statuses or names else "No jobs yet. Next: mainspring jobs run NAME")
            return
        rows = [(job.id, job.handler, job.status, _instant(job.enqueued_at)) for job in found]
        show_records(console, ("id", "job", "status", "queued"), rows)
        told = [job for job in found if _state(job) != job.status]
        if told:  # below the table, whose columns are too narrow for an error
            console.print()
            _tell(console, told)

    call.result([_document(job) for job in found], show)


def _whole(call: Call, given: str) -> str:
    return whole_id("job", given, (each.id for each in call.project.jobs.find(limit=NEWEST)))


@make("show")
@click.argument("job_id", metavar="ID")
def show(call: Call, *, job_id: str) -> None:
    """Show a job, its finished steps, and its error."""
    from mainspring.operations.jobs import queue

    job = _brief(queue.job(call.project, _whole(call, job_id)))
    steps = call.project.jobs.steps(job.id)

    def told(console: Console) -> None:
        _print(console, f"{job.handler} {job.id}: {_state(job)}")
        for name in ("argument", "key", "schedule", "started_by", "team", "priority", "enqueued_at", "due_at",
                     "started_at", "ended_at", "attempts", "most_attempts", "holder", "result", "error"):  # fmt: skip
            value = getattr(job, name)
            if value is not None:
                _print(console, f"  {name:<14} {_instant(value) if name.endswith('_at') else value}")
        for step in steps:
            _print(console, f"  step           {step.name}, {_instant(step.ended_at)}")

    call.result({**_document(job), "steps": [dated(step, "ended_at") for step in steps]}, told)


@make("run", charges=True)
@click.argument("name")
@click.argument("argument", required=False, metavar="[JSON]")
@click.option("--key", help="Idempotency key: jobs with the same name and key are one job.")
@click.option("--priority", default=0, show_default=True, type=PRIORITY, help="Head start before other jobs, in hours.")
@_WAIT
@_HERE
def run(call: Call, *, name: str, argument: str | None, key: str | None, priority: int, wait: bool, here: bool) -> int:
    """Queue a job for the worker of a running `up`. JSON is its argument, an object.

    The built-in jobs are batch, collect-garbage, evidence, explain, forget-jobs, ingest-warehouse, materialise,
    monitor, search, snapshot, tidy and train; docs/howto/jobs.md describes them.
    """
    from mainspring.operations.jobs import queue

    job = queue.begin(call.project, name, _parsed(argument), key=key, priority=priority)
    return _follow(call, job, wait=wait, here=here)


@make("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def cancel(call: Call, *, ids: tuple[str, ...]) -> None:
    """Cancel jobs: a queued job at once, a running job at the end of its step."""
    from mainspring.operations.jobs import queue

    done = queue.cancel(call.project, [_whole(call, each) for each in ids])
    call.result([_document(job) for job in done], lambda console: _tell(console, done))


@make("retry")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def retry(call: Call, *, ids: tuple[str, ...]) -> None:
    """Queue failed and cancelled jobs again; each resumes after its last finished step.

    A run of a pipeline is retried with its failed steps, as by `mainspring pipelines retry`.
    """
    from mainspring.operations.pipelines.control import retry_jobs

    done = retry_jobs(call.project, [_whole(call, each) for each in ids])
    call.result([_document(job) for job in done], lambda console: _tell(console, done))


@make("logs")
@click.argument("job_id", metavar="ID")
def logs(call: Call, *, job_id: str) -> None:
    """Show what a job printed, if the worker ran it in a process of its own."""
    from mainspring.jobs.logs import plain
    from mainspring.operations.jobs import queue

    text = queue.log(call.project, _whole(call, job_id))
    call.result({"log": text}, lambda console: _print(console, plain(text).rstrip("\n") or "It has printed nothing."))


@make("schedules")
def schedules(call: Call) -> None:
    """List the schedules, with the next run of each."""
    from mainspring.operations.jobs.queue import planned

    found = planned(call.project)

    def show(console: Console) -> None:

        rows = [
            (each.name, each.job, each.when, "" if each.last is None else _instant(each.last), _instant(each.next))
            for each in found
        ]
        show_records(console, ("schedule", "job", "when", "last", "next"), rows)

    call.result([dated(each, "last", "next") for each in found], show)


def _follow(call: Call, job: Job, *, wait: bool, here: bool) -> int:
    """End a command that began a job: at once, or when the job has ended."""
    from mainspring.operations.jobs import queue

    if here:
        job = queue.run_here(call.project, job.id)
    elif wait:
        with call.progress() as progress:

            def told(job: Job) -> None:
                at = job.progress
                progress.update(job.handler, at.done if at else 0, at.total if at else None, _state(job))

            job = queue.wait(call.project, job.id, told)

    def show(console: Console) -> None:
        _tell(console, [job])
        if job.status == "queued" and not queue.worker_is_up(call.project):
            _print(console, "No worker is running: start one with `mainspring up`, or repeat the command with --here.")

    call.result(_document(job), show)
    return exits.INTERNAL if job.status in ("failed", "cancelled", "skipped") else exits.OK


def _brief(job: Job) -> Job:
    """Return a job without the graph of a pipeline, which is as long as the pipeline."""
    from dataclasses import replace

    if isinstance(job.argument, dict) and "graph" in job.argument:
        return replace(job, argument={name: value for name, value in job.argument.items() if name != "graph"})
    return job


def _document(job: Job) -> dict[str, Any]:
    job = _brief(job)
    return dated(job, "enqueued_at", "due_at", "started_at", "ended_at", "leased_until")


def _parsed(argument: str | None) -> Any:
    import json

    from mainspring.core.errors import Invalid

    try:
        return None if argument is None else json.loads(argument)
    except ValueError as error:
        raise Invalid(
            f"The argument is not valid JSON: {error}.", fix="""write an object: '{"grace": "30d"}'."""
        ) from None


def _state(job: Job) -> str:
    """Return a job's state in a few words."""
    if job.error is not None:
        told = job.error.splitlines()[0] if job.error else ""
        again = f", again {_instant(job.due_at)}" if job.status == "queued" else ""
        return f"{job.status}, attempt {job.attempts} of {job.most_attempts}{again}: {told}"
    if job.status == "running" and job.progress is not None:
        total = "" if job.progress.total is None else f" of {job.progress.total:g}"
        return f"running, {job.progress.done:g}{total} {job.progress.note}".rstrip()
    return f"{job.status}, cancellation requested" if job.cancelling else str(job.status)


def _tell(console: Console, jobs: list[Job]) -> None:
    for job in jobs:
        _print(console, f"{job.handler} {job.id}: {_state(job)}")


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _instant(instant: int) -> str:
    from mainspring.core.time import SECOND, format_instant

    return format_instant(instant // SECOND * SECOND)


for _command in (list_, show, run, cancel, retry, logs, schedules):
    command.add_command(_command)
