"""`mainspring up`: run the gateway, the console and the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from mainspring.core.settings import Settings
    from mainspring.project import Project

PARTS = ("gateway", "grpc", "control", "worker", "log")


@make("up")
@click.option("--gateway", help="Serve predictions on this HOST:PORT.")
@click.option("--control", help="Serve the console on this HOST:PORT.")
@click.option("--grpc", help="Serve predictions over gRPC too, on this HOST:PORT.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Run this part alone; repeatable.")
@click.option("--contained", is_flag=True, help="In a container: logs to standard error, models within its memory.")
def command(
    call: Call,
    *,
    gateway: str | None,
    control: str | None,
    grpc: str | None,
    only: tuple[str, ...],
    contained: bool,
) -> None:
    """Run the gateway, the console and the worker until Ctrl-C or SIGTERM; restart a process that dies.

    With --only gateway and --only log this machine serves, and moves what it logs into the lake; the worker and the
    console run on another.
    """
    from mainspring.core.errors import Unavailable
    from mainspring.operations.auditing import audit
    from mainspring.operations.keys import console_link, first_key
    from mainspring.processes.contained import START_S, models_memory, refuse_hosted
    from mainspring.processes.given_keys import take_keys
    from mainspring.processes.kinds import MODULES
    from mainspring.processes.supervisor import Supervisor

    refuse_hosted()
    addresses = {"gateway": gateway, "control": control, "grpc": grpc}
    call.overrides = {name: value for name, value in addresses.items() if value}
    project = call.project
    settings = project.settings
    if contained:
        take_keys(settings)
    _ = project.definitions  # report their errors here, not in a child's log
    _warn(call, project)
    parts = only or tuple(MODULES)
    lets_in = "control" in parts and not contained  # many can read a container's output
    supervisor = Supervisor(
        project,
        {
            **(models_memory(settings) if contained and "gateway" in parts else {}),
            **{f"MAINSPRING_{name.upper()}": str(value) for name, value in call.overrides.items()},
        },
        parts,
        tell=lambda text: call.say(text, markup=False),
        logs_to_files=not contained,
    )
    within_s = {"ready_within_s": START_S} if contained else {}
    with supervisor.heeding(), supervisor.running(**within_s):
        token = None
        while not supervisor.asked_to_stop:
            try:
                token = first_key(project) if lets_in else None
                audit(project, "up", "installation", f"profile {settings.profile}")
                break
            except Unavailable as error:  # such as a locked catalog: what runs continues
                call.say(f"Waiting for the catalog: {error}", markup=False)
                supervisor.wait(1.0)
        _tell(call, settings, parts, contained=contained)
        if token:
            call.say()
            call.say("The administrator's key (shown only once):")
            call.say(f"  {token}", soft_wrap=True)
        if lets_in and not supervisor.asked_to_stop:
            call.say("A link that logs into the console once, within ten minutes (`mainspring console` gives more):")
            call.say(f"  {console_link(project)}", soft_wrap=True, markup=False)
        call.say("Press Ctrl-C to stop.", style="dim")
        call.result(
            {"project": settings.project, "profile": settings.profile, "gateway": settings.gateway.url,
             "control": settings.control.url, "admin_key": token}
        )  # fmt: skip
        while contained and not supervisor.asked_to_stop:
            supervisor.wait(1.0)
            supervisor.collect_orphans()  # as the first process of the container
        supervisor.wait()
        call.say("Stopping.")


def _warn(call: Call, project: Project) -> None:
    """Tell what keeps no part from running, and is not as it should be."""
    from mainspring.operations.endpoint_checks import waiting_for_features
    from mainspring.operations.upstream_checks import unreadable
    from mainspring.project.ledger_folder import stranded

    for left in stranded(project.settings):
        call.say(f"Warning: {left.what}.\n  Fix: {left.fix}", markup=False)
    for found in unreadable(project):
        call.say(f"Warning: {found.detail} The gateway serves without it.\n  Fix: {found.fix}", markup=False)
    for found in waiting_for_features(project):
        call.say(f"Warning: {found.detail}.\n  Fix: {found.fix}", markup=False)


def _tell(call: Call, settings: Settings, parts: Sequence[str], *, contained: bool) -> None:
    """Tell where the parts listen, and where they log."""
    from mainspring.processes.kinds import log_path

    call.say(f"[bold]Mainspring[/] · project {settings.project} · profile {settings.profile}")
    if "gateway" in parts:
        call.say(f"  predictions  {settings.gateway.url}/v2")
    if settings.grpc is not None and "grpc" in parts:
        call.say(f"  over gRPC    {settings.grpc.host}:{settings.grpc.port}")
    if "control" in parts:
        call.say(f"  console      {settings.control.url}")
    if not contained:
        call.say(f"  logs         {log_path(settings.state, parts[0]).parent}")
