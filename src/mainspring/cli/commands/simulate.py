"""`mainspring simulate`: an endpoint under a load, before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.simulation.report import Outcome, SimulationReport

_BLOCKS = " ▁▂▃▄▅▆▇█"
_CURVE = 20  # characters


@make("simulate")
@click.argument("endpoint")
@click.option("--load", default="recorded", show_default=True,
              help="'200/s for 10m, 200-600/s for 2m', or recorded: the logged predictions.")  # fmt: skip
@click.option("--since", default="1d", show_default=True, help="Of a recorded load: how long ago it begins.")
@click.option("--faster", type=float, default=1.0, show_default=True, help="Of a recorded load: by how much more.")
@click.option("--executors", multiple=True, metavar="N|MIN-MAX", help="A policy to try; repeatable.")
@click.option("--replicas", multiple=True, metavar="N|MIN-MAX@USE", help="Replicas to try; repeatable.")
@click.option("--machine", "machines", multiple=True, metavar="PROVIDER/REGION/INSTANCE", help="Repeatable.")
@click.option("--speed", type=float, default=1.0, show_default=True,
              help="Of a core of these machines, as a multiple of one here.")  # fmt: skip
@click.option("--boot", "boot_s", type=float, default=60.0, show_default=True, help="Seconds until a replica answers.")
@click.option("--interrupted", "interrupted_an_hour", type=float, default=0.0, show_default=True,
              help="Losses of a spot machine to expect in an hour.")  # fmt: skip
@click.option("--in-time", "wanted", type=float, default=0.99, show_default=True, help="Share to be answered in time.")
@click.option("--check", is_flag=True, help="Compare the first minute with a real gateway.")
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
    interrupted_an_hour: float,
    wanted: float,
    check: bool,
    seed: int,
) -> None:
    """Simulate ENDPOINT under a load: policies of scaling on machines, by cost, latency and goodput.

    The gateway's own batcher and scaling policy run in virtual time, with batches that take as long as those that are
    measured here first. Exit code 3 if no policy meets the objective.
    """
    from mainspring.operations.simulation.comparing import parse_executors, parse_replicas, simulate_endpoint
    from mainspring.operations.simulation.report import Candidate

    counts = [parse_executors(each) for each in executors]
    fleets = [parse_replicas(each) for each in replicas] or [((1, 1), 0.6)]
    candidates = [
        Candidate(executors=count, replicas=fleet, target=target, machine=machine)
        for count in (counts or ([(1, 1)] if machines or replicas else []))
        for fleet, target in fleets
        for machine in (machines or ("",))
    ]
    report = simulate_endpoint(
        call.project,
        endpoint,
        load,
        candidates,
        wanted=wanted,
        since=since,
        faster=faster,
        speed=speed,
        boot_s=boot_s,
        interrupted_an_hour=interrupted_an_hour,
        check=check,
        seed=seed,
        told=lambda text: call.say(f"  {text}", style="dim", markup=False),
    )
    call.result(report, lambda console: _show(console, report))
    raise SystemExit(exits.OK if report.best is not None else exits.GATE)


def _show(console: Console, report: SimulationReport) -> None:
    console.print(
        f"{report.requests:,} requests in {report.seconds:,.0f} s ({report.requests / report.seconds:,.1f}/s) to "
        f"{report.endpoint}, version {report.version}; deadline {report.deadline_ms:g} ms.",
        markup=False,
    )
    priced = any(each.hour is not None for each in report.outcomes)
    rows = [_row(each, priced) for each in report.outcomes]
    columns = (
        "policy",
        "machine",
        "in time",
        "p50 ms",
        "p99 ms",
        "goodput/s",
        *(("month",) if priced else ()),
        "executors",
    )
    show_records(console, columns, rows, right=("in time", "p50 ms", "p99 ms", "goodput/s", "month"))
    if report.best is None:
        console.print(f"No policy answers {report.wanted:.1%} in time.", style="yellow", markup=False)
    else:
        best = report.outcomes[report.best]
        console.print(f"The cheapest that answers {report.wanted:.1%} in time: {best.policy}.", markup=False)
        least, most = best.candidate.executors
        pair = f"executors=({least}, {most})"
        console.print(f"  To have it: ms.Endpoint({report.endpoint!r}, ..., {pair})", style="dim", markup=False)
    for each in report.assumed:
        console.print(f"Assumed: {each}.", style="dim", markup=False)
    if report.check is not None:
        console.print(f"Beside a real gateway, {report.check.seconds:.0f} s:", markup=False)
        names = [
            (name, f"{report.check.predicted[name]:,.2f}", f"{value:,.2f}", f"{report.check.errors[name]:.0%}")
            for name, value in report.check.measured.items()
        ]
        show_records(console, ("", "predicted", "measured", "off by"), names, right=("predicted", "measured", "off by"))


def _row(outcome: Outcome, priced: bool) -> tuple[str, ...]:
    return (
        outcome.policy,
        outcome.machine,
        f"{outcome.in_time:.2%}",
        "–" if outcome.p50_ms is None else f"{outcome.p50_ms:,.1f}",
        "–" if outcome.p99_ms is None else f"{outcome.p99_ms:,.1f}",
        f"{outcome.goodput:,.1f}",
        *((("–" if outcome.month is None else f"{outcome.month:,.0f} {outcome.currency}"),) if priced else ()),
        _drawn(outcome.curve),
    )


def _drawn(curve: list[int]) -> str:
    """Return the executors over time as a line of blocks."""
    most, step = max(curve, default=0), -(-len(curve) // _CURVE)
    parts = [max(curve[at : at + step]) for at in range(0, len(curve), step)]
    return "".join(_BLOCKS[round(each / most * (len(_BLOCKS) - 1)) if most else 0] for each in parts) + f" {most}"
