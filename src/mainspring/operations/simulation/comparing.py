"""Simulation of an endpoint under a load against policies of scaling, on this machine or machines of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.money import MONTH_HOURS, MixedCurrencies
from mainspring.core.time import SECOND, parse_duration
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import PURCHASES, find
from mainspring.cost.machine import exchanged, instance_hour, profile_currency
from mainspring.operations.predict import route_of
from mainspring.operations.prices import machine_rates_of, prices_folder
from mainspring.operations.simulation.checking import checked
from mainspring.operations.simulation.measuring import Measured, Told, measured
from mainspring.project import Project
from mainspring.serving.model import Route
from mainspring.serving.simulation.arrivals import Instants, described, recorded
from mainspring.serving.simulation.fleet import ByUtilisation, Fixed, FleetRule
from mainspring.serving.simulation.lives import Lives
from mainspring.serving.simulation.model import Machines, Simulated
from mainspring.serving.simulation.simulator import simulate_often
from mainspring.serving.simulation_report import ON_DEMAND, SPOT, Candidate, Outcome, SimulationReport

RECORDED = "recorded"
HERE = "here"
_CHECK_S = 60.0
_TIMES, _OFTEN = 5, 20_000  # so often a load of up to so many requests is simulated
_POINTS = 60  # of a curve that is shown
_REPLICAS = re.compile(r"(\d{1,3})(?:-(\d{1,3})(?:@(0?\.\d+|1(?:\.0*)?))?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A load, and the conditions under which policies answer it.

    Attributes:
        load: A description such as `200/s for 10m, 600/s for 2m`, or `recorded`: the logged predictions.
        since: Of a recorded load: how long ago it begins.
        faster: Of a recorded load: by how much more it is.
        wanted: Share of requests to be answered in time.
        margin: Share of the deadline that is kept free for what the prediction may be off.
        speed: Of other machines' cores, as a multiple of one of this machine.
        boot_s: Until a new replica answers.
        lives: Of spot machines; `None`: nothing is known.
        measure_s: Seconds for measuring the endpoint.
    """

    load: str = RECORDED
    since: str = "1d"
    faster: float = 1.0
    wanted: float = 0.99
    margin: float = 0.2
    speed: float = 1.0
    boot_s: float = 60.0
    lives: Lives | None = None
    measure_s: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.wanted <= 1 or not 0 <= self.margin < 1:
            raise Invalid(
                f"wanted={self.wanted:g} and margin={self.margin:g} are no objective.",
                fix="the first is above 0 and at most 1, the second from 0 and below 1.",
            )
        if not 0 < self.speed < 100 or not self.faster > 0 or not self.boot_s >= 0 or not 0 < self.measure_s <= 600:
            raise Invalid(
                f"speed={self.speed:g}, faster={self.faster:g}, boot={self.boot_s:g} s and "
                f"measure={self.measure_s:g} s make no simulation.",
                fix="they are above 0, the speed below 100, and a measurement takes up to 600 s.",
            )


def simulate_endpoint(
    project: Project,
    endpoint: str,
    scenario: Scenario,
    candidates: Sequence[Candidate] = (),
    *,
    check: bool = False,
    told: Told = lambda _: None,
) -> SimulationReport:
    """Return what a load comes to under each candidate, and store it as the endpoint's last simulation.

    Args:
        candidates: By default the endpoint's own executors, and other numbers that this machine has cores for.
        check: Run the first minute of the load against a real gateway, too, under the endpoint's own policy.

    Raises:
        NotFound: There is no such endpoint or machine, or no such price.
        Invalid: The load cannot be read, or prices are in several currencies.
        Unavailable: The endpoint serves nothing yet.
    """
    arrivals = _arrivals(project, endpoint, scenario)
    chosen = list(candidates) or _usual(route_of(project, endpoint))
    machines = priced_machines(project, chosen)
    _check_spot(scenario, chosen)
    found = measured(
        project, endpoint, arrivals, max(each.replicas[1] for each in chosen), scenario.measure_s, told
    )  # fmt: skip
    outcomes = []
    for each in chosen:
        told(each.said)
        outcomes.append(_outcome(found, each, machines[each.machine, each.purchase], arrivals, scenario))
    outcomes.sort(key=_order)
    report = SimulationReport(
        endpoint=endpoint,
        version=found.version,
        load=scenario.load,
        seconds=float(arrivals[-1] + 1) / SECOND,
        requests=len(arrivals),
        deadline_ms=found.route.deadline_us / 1000,
        simulated_at=project.wall.now(),
        wanted=scenario.wanted,
        margin=scenario.margin,
        outcomes=outcomes,
        best=0 if outcomes[0].meets else None,
        measured=found.parts,
        assumed=_assumed(chosen, scenario),
        check=checked(project, found, arrivals[arrivals < _CHECK_S * SECOND], scenario.seed, told) if check else None,
    )
    project.simulations.put(report)
    return report


def _check_spot(scenario: Scenario, candidates: Sequence[Candidate]) -> None:
    """Raise if interruptions have no spot machine."""
    if scenario.lives is not None and not any(each.purchase == SPOT for each in candidates):
        raise Invalid(
            "Interruptions are of spot machines, and none is simulated.",
            fix="name one: --machine aws/us-east-1/c7i.large:spot.",
        )


def _assumed(candidates: Sequence[Candidate], scenario: Scenario) -> list[str]:
    """Return what was not measured, in words."""
    found = []
    if any(each.machine for each in candidates):
        found.append(f"a core of other machines does {scenario.speed:g} times the work of one here")
    if any(each.purchase == SPOT for each in candidates):
        lives = scenario.lives
        found.append(
            "spot machines are never interrupted"
            if lives is None
            else f"{lives.an_hour:.3g} interruptions of a spot machine in an hour"
        )
    if any(each.replicas[0] < each.replicas[1] for each in candidates):
        found.append(f"a new replica answers after {scenario.boot_s:g} s")
    return found


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


def parse_machine(text: str) -> tuple[str, str]:
    """Return the machine and the purchase of a text such as `aws/eu-west-1/c7i.large:spot`; by default on demand.

    The machine `here` is this one.

    Raises:
        Invalid: There is no such purchase.
    """
    machine, _, purchase = text.partition(":")
    if (purchase or ON_DEMAND) not in PURCHASES:
        raise Invalid(f"{purchase!r} of {text!r} is no purchase.", fix=f"write one of {', '.join(PURCHASES)}.")
    return "" if machine == HERE else machine, purchase or ON_DEMAND


def _arrivals(project: Project, endpoint: str, scenario: Scenario) -> Instants:
    if scenario.load != RECORDED:
        found = described(scenario.load, scenario.seed)
        if not len(found):
            raise Invalid(f"The load {scenario.load!r} has no request.", fix="write a higher rate or a longer time.")
        return found
    now = project.clock.now()
    project.predictions.compact()
    begin = now - parse_duration(scenario.since)
    arrivals = project.predictions.arrivals(endpoint, begin, now + 1, columns=["at"])
    batches = () if arrivals is None else arrivals.batches
    parts = [each["at"].to_numpy().astype("datetime64[us]").astype(np.int64) for each in batches]
    return recorded(np.concatenate(parts) if parts else [], faster=scenario.faster)


def _usual(route: Route) -> list[Candidate]:
    cores = usable_cores()
    numbers = dict.fromkeys(
        [route.executors, (1, 1), *((count, count) for count in (2, 4, 8) if count <= cores), (0, cores)]
    )
    return [Candidate(executors=each) for each in numbers]


@dataclass(frozen=True, slots=True)
class PricedMachine:
    """A kind of machine: its cores, and the price of an hour, if it is known."""

    cores: float
    hour: float | None
    currency: str


def priced_machines(project: Project, candidates: Sequence[Candidate]) -> dict[tuple[str, str], PricedMachine]:
    """Return the machines of candidates by name and purchase, with prices of one currency.

    Raises:
        NotFound: The catalogue lacks a machine or its price.
        Invalid: Prices are in two currencies, and the profile states no rate of exchange.
    """
    machines = {(each.machine, each.purchase): _machine(project, each) for each in candidates}
    currencies = sorted({each.currency for each in machines.values() if each.hour is not None})
    if len(currencies) > 1:
        one, other, *_ = currencies
        raise Invalid(
            f"The prices are in {' and '.join(currencies)}.",
            fix=f'state the rate: [profiles.NAME.prices] exchange = {{ {other} = "1.08 {one}" }}; or compare machines '
            "of one currency.",
        )
    return machines


def _machine(project: Project, candidate: Candidate) -> PricedMachine:
    if candidate.machine:
        offers = known_offers(prices_folder(project))
        offer = find(offers, candidate.machine)
        prices = project.settings.prices
        money, _, _ = instance_hour(prices, offers, candidate.machine, candidate.purchase)
        with suppress(MixedCurrencies):  # told of where it is compared with others
            money = exchanged(money, profile_currency(prices) or money.currency, prices.exchange)
        return PricedMachine(float(offer.vcpus or 1), money.units, money.currency)
    try:
        rates = machine_rates_of(project)
    except MainspringError:  # the profile's price is wrong or unknown, which `prices show` says
        rates = None
    if rates is None:
        return PricedMachine(float(usable_cores()), None, "")
    return PricedMachine(float(usable_cores()), rates.machine_hour, rates.currency)


def _outcome(
    found: Measured, candidate: Candidate, machine: PricedMachine, arrivals: Instants, scenario: Scenario
) -> Outcome:
    least, most = candidate.replicas

    def rule() -> FleetRule:
        return Fixed(most) if least == most else ByUtilisation(least, most, target=candidate.target)

    result = simulate_often(
        found.endpoint(candidate.executors, machine.cores, scenario.speed if candidate.machine else 1.0),
        arrivals,
        rule,
        Machines(
            boot_s=scenario.boot_s if least < most or candidate.purchase == SPOT else 0.0,
            lives=scenario.lives if candidate.purchase == SPOT else None,
        ),
        seed=scenario.seed,
        times=_TIMES if len(arrivals) <= _OFTEN else 1,
    )
    price = None if machine.hour is None else machine.hour * result.machine_s / result.seconds
    safely = int((result.latencies_us <= (1 - scenario.margin) * found.route.deadline_us).sum()) / result.asked
    p50, p99 = result.quantile_us(0.5), result.quantile_us(0.99)
    return Outcome(
        candidate=candidate,
        policy=candidate.said,
        machine=_named(candidate),
        meets=safely >= scenario.wanted,
        goodput=result.goodput,
        in_time=result.share_in_time,
        safely=safely,
        p50_ms=None if p50 is None else p50 / 1000,
        p99_ms=None if p99 is None else p99 / 1000,
        refused=result.refused,
        lost=result.lost,
        machine_hours=result.machine_s / 3600,
        executor_hours=result.executor_s / 3600,
        busy_hours=result.busy_s / 3600,
        processor_hours=result.processor_s / 3600,
        hour=price,
        month=None if price is None else price * MONTH_HOURS,
        currency=machine.currency,
        curve=_curve(result),
    )


def _named(candidate: Candidate) -> str:
    purchase = "" if candidate.purchase == ON_DEMAND else f", {candidate.purchase.replace('_', ' ')}"
    return f"{candidate.machine}{purchase}" if candidate.machine else "this machine"


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
    # Beyond three digits a price is chance.
    return not outcome.meets, float(f"{price:.3g}") if outcome.meets else -outcome.safely, outcome.executor_hours
