"""`mainspring simulate`: an endpoint under a load, before anything is changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.simulation_view import show

if TYPE_CHECKING:
    from mainspring.serving.simulation.lives import Lives
    from mainspring.serving.simulation_report import Candidate, Change, SimulationReport


@make("simulate")
@click.argument("endpoint")
@click.option("--load", default="recorded", show_default=True,
              help="'200/s for 10m, 200-600/s for 2m', or recorded: the logged predictions.")  # fmt: skip
@click.option("--since", default="1d", show_default=True, help="Of a recorded load: how long ago it begins.")
@click.option("--faster", type=float, default=1.0, show_default=True, help="Of a recorded load: by how much more.")
@click.option("--executors", multiple=True, metavar="N|MIN-MAX", help="A policy to try; repeatable.")
@click.option("--replicas", multiple=True, metavar="N|MIN-MAX@USE", help="Replicas to try; repeatable.")
@click.option("--machine", "machines", multiple=True, metavar="PROVIDER/REGION/INSTANCE[:PURCHASE]",
              help="Or here; with :spot, :one_year or :three_years at that price. Repeatable.")  # fmt: skip
@click.option("--speed", type=float, default=1.0, show_default=True,
              help="Of a core of these machines, as a multiple of one here.")  # fmt: skip
@click.option("--boot", "boot_s", type=float, default=60.0, show_default=True, help="Seconds until a replica answers.")
@click.option("--interrupted", "interrupted_an_hour", type=float,
              help="Losses of a spot machine to expect in an hour.")  # fmt: skip
@click.option("--interruptions", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Recorded lives of spot machines: CSV of hours, interrupted.")  # fmt: skip
@click.option("--in-time", "wanted", type=float, default=0.99, show_default=True, help="Share to be answered in time.")
@click.option("--margin", type=float, default=0.2, show_default=True,
              help="Share of the deadline to keep free for what the prediction may be off.")  # fmt: skip
@click.option("--measure", "measure_s", type=float, default=8.0, show_default=True,
              help="Seconds for measuring the endpoint.")  # fmt: skip
@click.option("--check", is_flag=True, help="Compare the first minute with a real gateway.")
@click.option("--apply", "applies", is_flag=True, help="Show the change of the definition; write it if you agree.")
@click.option("--yes", is_flag=True, help="With --apply: do not ask.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    call: Call,
    *,
    endpoint: str,
    load: str,
    since: str,
    faster: float,
    executors: tuple[str, ...],
    replicas: tuple[str, ...],
    machines: tuple[str, ...],
    speed: float,
    boot_s: float,
    interrupted_an_hour: float | None,
    interruptions: Path | None,
    wanted: float,
    margin: float,
    measure_s: float,
    check: bool,
    applies: bool,
    yes: bool,
    seed: int,
) -> None:
    """Simulate ENDPOINT under a load: policies of scaling on machines, by cost, latency and goodput.

    The gateway's own batcher and scaling policy run in virtual time, with batches that take as long as those that are
    measured here first. Exit code 3 if no policy meets the objective.
    """
    from mainspring.operations.simulation.comparing import Scenario, simulate_endpoint

    if yes and not applies:
        raise click.UsageError("--yes goes with --apply.")
    scenario = Scenario(
        load=load, since=since, faster=faster, wanted=wanted, margin=margin, speed=speed, boot_s=boot_s,
        lives=_lives(interrupted_an_hour, interruptions), measure_s=measure_s, seed=seed,
    )  # fmt: skip
    report = simulate_endpoint(
        call.project,
        endpoint,
        scenario,
        _candidates(executors, replicas, machines),
        check=check,
        told=lambda text: call.say(f"  {text}", style="dim", markup=False),
    )
    if applies:
        report = report.changing(_applied(call, report, yes=yes))
    call.result(report, lambda console: show(console, report))
    raise SystemExit(exits.OK if report.best is not None else exits.GATE)


def _candidates(executors: tuple[str, ...], replicas: tuple[str, ...], machines: tuple[str, ...]) -> list[Candidate]:
    from mainspring.operations.simulation.comparing import parse_executors, parse_machine, parse_replicas
    from mainspring.serving.simulation_report import Candidate

    counts = [parse_executors(each) for each in executors]
    fleets = [parse_replicas(each) for each in replicas] or [((1, 1), 0.6)]
    return [
        Candidate(executors=count, replicas=fleet, target=target, machine=machine, purchase=purchase)
        for count in (counts or ([(1, 1)] if machines or replicas else []))
        for fleet, target in fleets
        for machine, purchase in [parse_machine(each) for each in machines or ("",)]
    ]


def _lives(an_hour: float | None, trace: Path | None) -> Lives | None:
    from mainspring.core.errors import Invalid
    from mainspring.serving.simulation.lives import Lives, read_lives

    if trace is not None:
        if an_hour is not None:
            raise Invalid("Interruptions have a rate and a trace.", fix="leave out --interrupted or --interruptions.")
        return read_lives(trace.read_text(errors="replace"))
    if an_hour is not None and not 0 <= an_hour < 1000:
        raise Invalid(f"{an_hour:g} interruptions in an hour make no simulation.", fix="write a number from 0.")
    return None if an_hour is None else Lives.at(an_hour)


def _applied(call: Call, report: SimulationReport, *, yes: bool) -> Change | None:
    """Show the change of the definition that has the chosen policy, and write it if that is wanted."""
    from mainspring.core.errors import NotFound
    from mainspring.operations.simulation.applying import plan_change, write_change

    if report.best is None:
        return None
    declared = call.project.definitions.endpoints.get(report.endpoint)
    if declared is None:
        raise NotFound(f"The project's modules define no endpoint {report.endpoint!r}.")
    least, most = declared.executors
    settings, chosen = call.project.settings, report.outcomes[report.best].candidate.executors
    planned = plan_change(settings.root, settings.modules, report.endpoint, (least, most), chosen)
    change = planned.change
    if not change.diff or not (yes or (not call.json and sys.stdin.isatty())):
        return change
    if not yes:
        call.say(change.diff, markup=False)
        if not click.confirm("Write it?", err=True):
            return change
    return write_change(planned)
