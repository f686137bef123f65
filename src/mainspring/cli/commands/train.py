"""`mainspring train`: from data to a signed, registered version."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.core.settings import TRAINING_RUNNERS
from mainspring.operations.features.engines import ENGINES

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.distributed.part import Part


def _needed(context: click.Context, argument: click.Parameter, model: str | None) -> str | None:
    """Refuse a call without a model; a plan may have a described one instead."""
    if model is None and not context.params.get("plan"):
        if context.params.get("described") is not None:
            raise click.UsageError("--model goes with --plan.", context)
        raise click.MissingParameter(ctx=context, param=argument)
    return model


def _counted(context: click.Context, argument: click.Parameter, value: str | None) -> int | str | None:
    """Return a number of processes, or `auto`."""
    if value is None or value == "auto":
        return value
    if not (value.isdecimal() and int(value)):
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor `auto`.", context, argument)
    return int(value)


@make("train", charges=True)
@click.argument("model", required=False, callback=_needed)
@click.option("--since", help="Use observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option(
    "--without", multiple=True, metavar="ROWS",
    help="Leave rows out, as if never ingested: SOURCE@BATCH, SOURCE.COLUMN=VALUE, or SOURCE; repeatable.",
)  # fmt: skip
@click.option(
    "--processes",
    callback=_counted,
    metavar="N|auto",
    help="Train in so many processes, or `auto`: as is best here; by default as the model declares.",
)
@click.option("--machines", type=click.IntRange(1), help="Train on so many machines; each runs this command.")
@click.option(
    "--machine", type=click.IntRange(0), help="Number of this machine; 0 opens the run, the others come to it."
)
@click.option("--meet", metavar="HOST:PORT", help="Address of machine 0, where it listens to the other machines.")
@click.option("--wait", metavar="DURATION", help="Longest time to wait for a machine; by default 10m.")
@click.option(
    "--runner",
    type=click.Choice(TRAINING_RUNNERS),
    help="Start the processes here or on Ray; by default as the profile says.",
)
@click.option("--engine", type=click.Choice(ENGINES), help="Where features are read; by default as the profile says.")
@click.option(
    "--plan", is_flag=True, is_eager=True, help="Train nothing: print the layout that fits, its time, and why."
)
@click.option(
    "--model", "described", is_eager=True, metavar="MODEL", help="With --plan: a language model, as of `llm plan`."
)
@click.option("--gpus", help="With --plan: GPUs, 8xH100 or 2x8xH100; by default this machine's devices.")
@click.option("--topology", metavar="FILE", help="With --plan: devices and links, described in a TOML file.")
@click.option("--batch", type=click.IntRange(1), help="With --plan: rows of a step; by default the training's, or 64.")
@click.option("--sequence", type=click.IntRange(1), help="With --plan --model: tokens of a row; by default 4096.")
@click.option("--precision", help="With --plan --model: amp (default), fp32, bf16, bf16-master.")
@click.option("--optimiser", help="With --plan --model: adamw (default), adam, adam8bit, sgd, momentum, lion.")
@click.option("--host-gib", type=click.FloatRange(0), help="With --plan: main memory of a machine, to keep shards in.")
def command(
    call: Call,
    *,
    model: str | None,
    since: str | None,
    until: str | None,
    without: tuple[str, ...],
    processes: int | Literal["auto"] | None,
    runner: str | None,
    machines: int | None,
    machine: int | None,
    meet: str | None,
    wait: str | None,
    engine: str | None,
    plan: bool,
    **planned: Any,
) -> None:
    """Train MODEL on data known by --until, verify that the bundle matches the estimator, sign and register it."""
    if plan and not all(each is None for each in (processes, runner, machines, machine, meet, wait, engine)):
        raise click.UsageError(
            "--processes, --machines, --runner and --engine train; with --plan give --gpus or --topology."
        )
    if machine is None and (meet is not None or wait is not None):
        raise click.UsageError("--meet and --wait go with --machine.")
    if machine is not None and runner is not None:
        raise click.UsageError("--machine is one of several that run this command; --runner starts them itself.")
    if plan:
        _plan(call, model, since, until, **planned)
        return
    useless = [f"--{name.replace('_', '-')}" for name, value in planned.items() if value is not None]
    if useless:
        raise click.UsageError(f"{', '.join(useless).replace('--described', '--model')} goes with --plan.")
    spread = {"processes": processes, "machines": machines, "part": _part(machine, meet, wait), "runner": runner or ""}
    _train(call, str(model), since, until, without, engine=engine, **spread)


def _plan(
    call: Call, model: str | None, since: str | None, until: str | None, *,
    described: str | None, gpus: str | None, topology: str | None, batch: int | None, sequence: int | None,
    precision: str | None, optimiser: str | None, host_gib: float | None,
) -> None:  # fmt: skip
    from mainspring.cli.training_plan_view import show_plan
    from mainspring.core.time import parse_instant
    from mainspring.operations.training_plan import plan_described, plan_training, topology_of

    if model is not None and described is not None:
        raise click.UsageError("--plan plans one: MODEL, of the project, or --model, a described one.")
    if model is None and described is None:
        raise click.UsageError("--plan needs MODEL, of the project, or --model, a described one.")
    devices = topology_of(gpus, topology, host_gib)
    if described is not None:
        found = plan_described(
            described, devices, batch=batch or 64, sequence=sequence, precision=precision or "amp",
            optimiser=optimiser or "adamw",
        )  # fmt: skip
        call.result(found, lambda console: show_plan(console, found))
        return
    if sequence is not None or precision is not None or optimiser is not None:
        raise click.UsageError("--sequence, --precision and --optimiser go with --model; MODEL's own are measured.")
    name = str(model)
    with call.progress() as progress:
        progress.update(name, 0, 100, "load the project")
        found = plan_training(
            call.project,
            name,
            devices,
            batch=batch,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            progress=lambda stage, share: progress.update(name, round(share * 100), 100, stage),
        )
        progress.finish(name, "planned")
    call.result(found, lambda console: show_plan(console, found))


def _part(machine: int | None, meet: str | None, wait: str | None) -> Part | None:
    from mainspring.core.settings import Address
    from mainspring.core.time import SECOND, parse_duration
    from mainspring.operations.distributed.part import WAIT_S, Part

    if machine is None:
        return None
    if meet is not None:
        Address.parse(meet)
    return Part(machine, meet or "", WAIT_S if wait is None else parse_duration(wait) / SECOND)


def _train(
    call: Call, model: str, since: str | None, until: str | None, without: tuple[str, ...], **spread: Any
) -> None:
    from rich.markup import escape

    from mainspring.core.time import parse_instant
    from mainspring.operations.train import train

    with call.progress() as progress:
        progress.update(model, 0, 100, "load the project")
        report = train(
            call.project,
            model,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            without=without,
            **spread,
            progress=lambda stage, share: progress.update(model, round(share * 100), 100, stage),
        )
        progress.finish(model, f"version {report.version}")

    def show(console: Console) -> None:
        console.print(
            f"[bold]{report.model} version {report.version}[/], bundle {report.digest[:12]}, run {report.run_id}"
        )
        console.print(
            f"{report.training_rows:,} training rows, {report.holdout_rows:,} held out, {report.seconds:.1f} s"
        )
        width = max(12, *map(len, report.metrics))
        for name, value in report.metrics.items():
            beside = f"   baseline {report.baseline[name]:.4f}" if name in report.baseline else ""
            console.print(f"  {name:<{width}} {value:.4f}{beside}", markup=False)
        if report.threshold is not None:
            console.print(f"  threshold {report.threshold:.6g}, at which errors cost least on the validation rows")
        for undefined in report.undefined:
            console.print(f"[yellow]Not measured:[/] {escape(undefined)}")
        for note in report.notes:
            console.print(f"[yellow]Note:[/] {escape(note)}")
        for finding in report.findings:
            console.print(f"[yellow]Possible leak:[/] {escape(finding)}")
        console.print(f"Next: mainspring promote {report.model}")

    call.result(asdict(report), show)
