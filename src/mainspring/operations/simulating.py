"""Simulation of an endpoint under a load against policies of scaling, on this machine or machines of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import HOUR, SECOND, parse_duration
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import find
from mainspring.cost.machine import instance_hour
from mainspring.operations.bench.load import loaded_gateway
from mainspring.operations.predict import route_of
from mainspring.operations.prices import machine_rates_of, prices_folder
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle
from mainspring.serving.model import Route
from mainspring.serving.simulation.arrivals import Instants, described, recorded
from mainspring.serving.simulation.fleet import ByUtilisation, Fixed, FleetRule
from mainspring.serving.simulation.measuring import measure
from mainspring.serving.simulation.simulator import Endpoint, Machines, Simulated, simulate
from mainspring.serving.simulation.times import Times

RECORDED = "recorded"
_OVERHEAD_US, _APART_US, _LEAST_OVERHEAD_US = 40.0, 80.0, 15.0
_LOAD_S = 0.1
_BOOT_S = 60.0
_MONTH_HOURS = 730.0
_POINTS = 60  # of a curve that is shown
_CHECK_S = 60.0
_REPLICAS = re.compile(r"(\d{1,3})(?:-(\d{1,3})(?:@(0?\.\d+|1(?:\.0*)?))?)?")
Told = Callable[[str], None]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on machines of a kind.

    Attributes:
        executors: Least and most of a replica.
        replicas: Least and most; by their utilisation, if they differ.
        target: Utilisation that is aimed at.
        machine: `PROVIDER/REGION/INSTANCE`; empty for this machine.
    """

    executors: tuple[int, int]
    replicas: tuple[int, int] = (1, 1)
    target: float = 0.6
    machine: str = ""

    @property
    def said(self) -> str:
        """The policy in words."""
        count = _span(self.executors)
        replicas = _span(self.replicas) + (f" at {self.target:.0%}" if self.replicas[0] < self.replicas[1] else "")
        return f"executors {count}" + (f", replicas {replicas}" if self.replicas != (1, 1) else "")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a candidate.

    Attributes:
        meets: Whether it answers the asked share of requests in time.
        goodput: Requests a second that are answered in time; `in_time`: their share.
        machine_hours: Of all replicas; `executor_hours`: of loaded executors.
        hour, month: Price at this load; `None` if it is unknown.
        curve: Executors over time, at up to 60 points of equal distance: the most in each.
    """

    candidate: Candidate
    policy: str
    machine: str
    meets: bool
    goodput: float
    in_time: float
    p50_ms: float | None
    p99_ms: float | None
    refused: int
    lost: int
    machine_hours: float
    executor_hours: float
    busy_hours: float
    hour: float | None
    month: float | None
    currency: str
    curve: list[int]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation beside a run of the same requests against a real gateway on this machine.

    Attributes:
        errors: By how much the prediction is off, as a share of what was measured.
    """

    seconds: float
    predicted: dict[str, float]
    measured: dict[str, float]
    errors: dict[str, float]


class SimulationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes, the cheapest that meets the objective first.

    Attributes:
        wanted: Share of requests that has to be answered in time.
        best: Index of the chosen one in `outcomes`; `None` if none meets the objective.
        assumed: Numbers that were not measured, in words.
    """

    endpoint: str
    version: str
    load: str
    seconds: float
    requests: int
    deadline_ms: float
    wanted: float
    outcomes: list[Outcome]
    best: int | None
    assumed: list[str]
    check: Checked | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """An endpoint as it is here."""

    route: Route
    version: str
    times: Times
    overhead_us: float
    apart_us: float
    load_s: float
    inline: bool
    assumed: tuple[str, ...]


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
        check: Run the first minute of the load against a real gateway, too, under the endpoint's own policy.

    Raises:
        NotFound: There is no such endpoint or machine.
        Invalid: The load or a number cannot be read.
        Unavailable: The endpoint serves nothing yet.
    """
    if not 0 < wanted <= 1 or not 0 < speed < 100 or faster <= 0:
        raise Invalid(f"wanted={wanted:g}, speed={speed:g}, faster={faster:g} make no simulation.")
    arrivals = _arrivals(project, endpoint, load, since, faster, seed)
    told("measuring the model")
    found = measured(project, endpoint)
    chosen = list(candidates) or _usual(found.route)
    outcomes = []
    for each in chosen:
        told(each.said)
        outcomes.append(_outcome(project, found, each, arrivals, wanted, speed, boot_s, interrupted_an_hour, seed))
    outcomes.sort(key=_order)
    assumed = list(found.assumed)
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
        assumed=assumed,
        check=_checked(project, found, arrivals, seed, told) if check else None,
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


def measured(project: Project, endpoint: str, seconds: float = 3.0) -> Measured:
    """Measure an endpoint's model here, with what is known of the gateway beside it from its last load test."""
    route = route_of(project, endpoint)
    arm = max(route.arms, key=lambda each: each.weight)
    bundle = project.bundles.load(arm.digest)
    executor = executors(project)(bundle)
    try:
        times, inline = measure(executor, bundle, most_rows=64, seconds=seconds), executor.inline
    finally:
        executor.close()
    assumed = []
    baseline = next((each for each in project.baselines.newest(endpoint, 5) if each.digest == arm.digest), None)
    if baseline is None or not baseline.capacity:
        overhead, apart = _OVERHEAD_US, _APART_US
        assumed.append(
            f"the gateway takes {overhead:g} µs a request and its connection {apart:g} µs; "
            f"`mainspring bench {endpoint}` measures them"
        )
    else:
        rows = max(1, round(baseline.batch_rows or 1))
        overhead = max(_LEAST_OVERHEAD_US, SECOND / baseline.capacity - times.mean(rows) / rows)
        overhead = min(overhead, max(_LEAST_OVERHEAD_US, baseline.alone_p50_us - times.mean(1)))
        apart = max(0.0, baseline.alone_p50_us - times.mean(1) - overhead)
    load_s = _load_s(project, bundle)
    if load_s is None:
        load_s = _LOAD_S
        assumed.append(f"the model loads in {1000 * load_s:g} ms")
    return Measured(route, arm.version, times, overhead, apart, load_s, inline, tuple(assumed))


def _load_s(project: Project, bundle: Bundle) -> float | None:
    from mainspring.project.model_memory import model_memory

    size = model_memory(project.settings, "").sizes.find(bundle.digest)
    return None if size is None else size.load_s


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
        endpoint_of(found, candidate.executors, cores, factor),
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


def endpoint_of(found: Measured, executors: tuple[int, int], cores: float, speed: float = 1.0) -> Endpoint:
    """Return an endpoint of the simulation."""
    return Endpoint(
        times=found.times if speed == 1.0 else found.times.faster(speed),
        overhead_us=found.overhead_us / speed,
        apart_us=found.apart_us,
        deadline_us=found.route.deadline_us,
        executors=executors,
        idle_s=found.route.idle_us / SECOND,
        load_s=found.load_s,
        cores=cores,
        inline=found.inline and executors == (1, 1),
        max_queue_rows=found.route.max_queue_rows,
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


def _span(pair: tuple[int, int]) -> str:
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def _checked(project: Project, found: Measured, arrivals: Instants, seed: int, told: Told) -> Checked:
    """Compare the first minute with a real gateway, under the endpoint's own policy."""
    some = arrivals[arrivals < _CHECK_S * SECOND]
    told(f"{len(some):,} requests against a real gateway")
    predicted = simulate(endpoint_of(found, found.route.executors, usable_cores()), some, Fixed(1), seed=seed)
    with loaded_gateway(project, found.route.endpoint) as loaded:
        loaded.warm_up()
        load, busy_s = loaded.replay((some / SECOND).tolist())
    in_time = float((load.latencies_us <= found.route.deadline_us).sum())
    ours = {
        "goodput": predicted.goodput,
        "p50_ms": (predicted.quantile_us(0.5) or 0.0) / 1000,
        "p99_ms": (predicted.quantile_us(0.99) or 0.0) / 1000,
        "processor_s": predicted.busy_s + predicted.loop_s,
    }
    real = {
        "goodput": in_time / predicted.seconds,
        "p50_ms": (load.quantile_us(0.5) or 0.0) / 1000,
        "p99_ms": (load.quantile_us(0.99) or 0.0) / 1000,
        "processor_s": busy_s,
    }
    errors = {name: abs(ours[name] / real[name] - 1) if real[name] else float("inf") for name in ours}
    return Checked(seconds=predicted.seconds, predicted=ours, measured=real, errors=errors)
