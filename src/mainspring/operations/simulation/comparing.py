"""Simulation of an endpoint under a load against policies of scaling, on this machine or machines of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import HOUR, SECOND, parse_duration
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import find
from mainspring.cost.machine import instance_hour
from mainspring.operations.predict import route_of
from mainspring.operations.prices import machine_rates_of, prices_folder
from mainspring.operations.simulation.checking import checked
from mainspring.operations.simulation.measuring import Measured, Told, measured
from mainspring.operations.simulation.report import Candidate, Outcome, SimulationReport
from mainspring.project import Project
from mainspring.serving.model import Route
from mainspring.serving.simulation.arrivals import Instants, described, recorded
from mainspring.serving.simulation.fleet import ByUtilisation, Fixed, FleetRule
from mainspring.serving.simulation.simulator import Machines, Simulated, simulate

RECORDED = "recorded"
_BOOT_S = 60.0
_MONTH_HOURS = 730.0
_CHECK_S = 60.0
_POINTS = 60  # of a curve that is shown
_REPLICAS = re.compile(r"(\d{1,3})(?:-(\d{1,3})(?:@(0?\.\d+|1(?:\.0*)?))?)?")


def simulate_endpoint(
    project: Project,
    endpoint: str,
    load: str,
    candidates: Sequence[Candidate] = (),
    *,
    wanted: float = 0.99,
    since: str = "1d",
    faster: float = 1.0,
    speed: float = 1.0,
    boot_s: float = _BOOT_S,
    interrupted_an_hour: float = 0.0,
    check: bool = False,
    seed: int = 0,
    measure_s: float = 8.0,
    told: Told = lambda _: None,
) -> SimulationReport:
    """Return what a load comes to under each candidate.

    Args:
        load: A description such as `200/s for 10m, 600/s for 2m`, or `recorded`: the logged predictions.
        candidates: By default the endpoint's own executors, and other numbers that this machine has cores for.
        wanted: Share of requests to be answered in time.
        since: Of a recorded load: how long ago it begins.
        faster: Of a recorded load: by how much more it is.
        speed: Of other machines' cores, as a multiple of one of this machine.
        measure_s: Seconds for measuring the endpoint.
        check: Run the first minute of the load against a real gateway, too, under the endpoint's own policy.

    Raises:
        NotFound: There is no such endpoint or machine.
        Invalid: The load or a number cannot be read.
        Unavailable: The endpoint serves nothing yet.
    """
    if not 0 < wanted <= 1 or not 0 < speed < 100 or faster <= 0:
        raise Invalid(f"wanted={wanted:g}, speed={speed:g}, faster={faster:g} make no simulation.")
    arrivals = _arrivals(project, endpoint, load, since, faster, seed)
    chosen = list(candidates) or _usual(route_of(project, endpoint))
    found = measured(project, endpoint, arrivals, max(each.replicas[1] for each in chosen), measure_s, told)
    outcomes = []
    for each in chosen:
        told(each.said)
        outcomes.append(_outcome(project, found, each, arrivals, wanted, speed, boot_s, interrupted_an_hour, seed))
    outcomes.sort(key=_order)
    assumed = []
    if any(each.machine for each in chosen):
        assumed.append(f"a core of other machines does {speed:g} times the work of one here")
    return SimulationReport(
        endpoint=endpoint,
        version=found.version,
        load=load,
        seconds=float(arrivals[-1] + 1) / SECOND,
        requests=len(arrivals),
        deadline_ms=found.route.deadline_us / 1000,
        wanted=wanted,
        outcomes=outcomes,
        best=0 if outcomes[0].meets else None,
        measured=found.parts,
        assumed=assumed,
        check=checked(project, found, arrivals[arrivals < _CHECK_S * SECOND], seed, told) if check else None,
    )


def parse_executors(text: str) -> tuple[int, int]:
    """Return the least and the most that a text such as `2` or `0-4` names.

    Raises:
        Invalid: It names none.
    """
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()) or int(last or first) < max(1, int(first)):
        raise Invalid(f"{text!r} names no executors.", fix="write 2, or 0-4 for the least and the most.")
    return int(first), int(last or first)


def parse_replicas(text: str) -> tuple[tuple[int, int], float]:
    """Return the least and the most, and the utilisation, of a text such as `2`, `1-8` or `1-8@0.6`.

    Raises:
        Invalid: It names none.
    """
    found = _REPLICAS.fullmatch(text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if found is None or not 0 < least <= most:
        raise Invalid(f"{text!r} names no replicas.", fix="write 2, or 1-8@0.6 for the least, the most and their use.")
    return (least, most), float(found[3] or 0.6)


def _arrivals(project: Project, endpoint: str, load: str, since: str, faster: float, seed: int) -> Instants:
    if load != RECORDED:
        found = described(load, seed)
        if not len(found):
            raise Invalid(f"The load {load!r} has no request.", fix="write a higher rate or a longer time.")
        return found
    now = project.clock.now()
    project.predictions.compact()
    arrivals = project.predictions.arrivals(endpoint, now - parse_duration(since), now + 1, columns=["at"])
    batches = () if arrivals is None else arrivals.batches
    parts = [each["at"].to_numpy().astype("datetime64[us]").astype(np.int64) for each in batches]
    return recorded(np.concatenate(parts) if parts else [], faster=faster)


def _usual(route: Route) -> list[Candidate]:
    cores = usable_cores()
    numbers = dict.fromkeys(
        [route.executors, (1, 1), *((count, count) for count in (2, 4, 8) if count <= cores), (0, cores)]
    )
    return [Candidate(executors=each) for each in numbers]


def _outcome(
    project: Project, found: Measured, candidate: Candidate, arrivals: Instants, wanted: float, speed: float,
    boot_s: float, interrupted_an_hour: float, seed: int,
) -> Outcome:  # fmt: skip
    cores, hour, currency = _machine(project, candidate.machine)
    factor = speed if candidate.machine else 1.0
    least, most = candidate.replicas
    rule: FleetRule = Fixed(most) if least == most else ByUtilisation(least, most, target=candidate.target)
    result = simulate(
        found.endpoint(candidate.executors, cores, factor),
        arrivals,
        rule,
        Machines(boot_s=boot_s if least < most else 0.0, interrupted_an_hour=interrupted_an_hour),
        seed,
    )
    hours = result.seconds * SECOND / HOUR
    price = None if hour is None else hour * result.machine_s / 3600 / hours
    p50, p99 = result.quantile_us(0.5), result.quantile_us(0.99)
    return Outcome(
        candidate=candidate,
        policy=candidate.said,
        machine=candidate.machine or "this machine",
        meets=result.share_in_time >= wanted,
        goodput=result.goodput,
        in_time=result.share_in_time,
        p50_ms=None if p50 is None else p50 / 1000,
        p99_ms=None if p99 is None else p99 / 1000,
        refused=result.refused,
        lost=result.lost,
        machine_hours=result.machine_s / 3600,
        executor_hours=result.executor_s / 3600,
        busy_hours=result.busy_s / 3600,
        hour=price,
        month=None if price is None else price * _MONTH_HOURS,
        currency=currency,
        curve=_curve(result),
    )


def _machine(project: Project, name: str) -> tuple[float, float | None, str]:
    """Return the cores, the price of an hour, and its currency."""
    if name:
        offers = known_offers(prices_folder(project))
        offer = find(offers, name)
        money, _, _ = instance_hour(project.settings.prices, offers, name, "on_demand")
        return float(offer.vcpus or 1), money.units, money.currency
    try:
        rates = machine_rates_of(project)
    except MainspringError:  # the profile's price is wrong or unknown, which `prices show` says
        rates = None
    return float(usable_cores()), None if rates is None else rates.machine_hour, "" if rates is None else rates.currency


def _curve(result: Simulated) -> list[int]:
    edges = np.linspace(0, result.seconds, _POINTS + 1)
    at, numbers = np.array([each for each, _ in result.executors]), [number for _, number in result.executors]
    curve = []
    for begin, end in pairwise(edges):
        first, last = np.searchsorted(at, begin, "right"), np.searchsorted(at, end, "right")
        curve.append(max(numbers[max(0, first - 1) : max(1, last)], default=0))
    return curve


def _order(outcome: Outcome) -> tuple[Any, ...]:
    price = outcome.machine_hours if outcome.hour is None else outcome.hour
    return not outcome.meets, price if outcome.meets else -outcome.in_time, outcome.executor_hours
