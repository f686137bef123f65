"""Machines that an endpoint needs: a load test here, a model of the machine there, and the prices of both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MissingExtra, NotFound
from mainspring.core.money import MONTH_HOURS
from mainspring.core.time import DAY, SECOND, format_instant
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import Offer, find
from mainspring.cost.machine import age_warning
from mainspring.operations.advise.machines import (
    HERE,
    Machine,
    described_machine,
    listed_machines,
    of_region,
    read_machine,
    this,
)
from mainspring.operations.advise.size_model import Bounds, SizeChoice, SizeReport
from mainspring.operations.bench.load import How, asked_by, bench, machine_of
from mainspring.operations.predict import route_of
from mainspring.operations.prices import prices_folder
from mainspring.operations.simulation.measuring import Measured, measured
from mainspring.project import Project
from mainspring.registry.bundles import GOLDEN, MODEL
from mainspring.registry.model import Bundle
from mainspring.serving.devices.device import ON_GPUS
from mainspring.serving.load.capacity import limits
from mainspring.serving.model import Baseline, Route
from mainspring.serving.plane.golden import Golden
from mainspring.serving.simulation.arrivals import Instants
from mainspring.serving.sizing.capacity import Capacities, moved, slowed, under
from mainspring.serving.sizing.choosing import Choice, Kind, choose
from mainspring.serving.sizing.layers import Layers
from mainspring.serving.sizing.layers import measured as measured_layers
from mainspring.serving.sizing.probing import probe
from mainspring.serving.sizing.roofline import Interval, undisturbed_us
from mainspring.serving.sizing.speed import Speed
from mainspring.serving.sizing.work import Work, work_of

_LOOKED_BACK = 28 * DAY
_CHANCE = 0.95  # of a load test's highest load
_OTHERS = 0.05  # of a core that other work had, from which on it is told
_PROCESS_GIB = 0.3  # of a gateway's process without models, with room for requests
_DISTURBED = 0.85  # of what a simulation expects: a load test that found less is repeated
_REPEATS, _TESTS = 2, 5
_MOST = 8  # choices
Told = Callable[[str], None]


def size(
    project: Project,
    endpoint: str,
    demand: float | None = None,
    *,
    machines: Sequence[str] = (),
    region: str = "",
    described: Sequence[Path] = (),
    speed: float | None = None,
    spare: int = 1,
    again: bool = False,
    seconds: float = 3.0,
    told: Told = lambda _: None,
) -> SizeReport:
    """Return the machines that an endpoint needs for a load.

    Args:
        demand: Requests a second; by default those of the busiest window of the last four weeks.
        machines: `PROVIDER/REGION/INSTANCE` of the catalogue.
        region: `PROVIDER/REGION` whose machines of the catalogue are all looked at.
        described: Files that `mainspring advise machine` wrote on other machines.
        speed: Of one core of the catalogue's machines, as a multiple of one here, where it was measured.
        spare: Machines that may be lost.
        again: Whether the load test is repeated although there is one of this version.
        seconds: Of each load of the test, and of the measurement of the model.

    Raises:
        NotFound: There is no such endpoint, machine or region, or no load is known.
        Invalid: A number is out of range, or the endpoint's models run on GPUs.
    """
    if demand is not None and not 0 < demand < float("inf"):
        raise Invalid(f"The load is {demand:g} requests a second.", fix="state one above 0: --rate 200.")
    if not 0 <= spare <= 10 or (speed is not None and not 0 < speed < 100):
        raise Invalid(f"spare={spare}, speed={speed} make no fleet.", fix="spare is 0 to 10, speed 0 to 100.")
    if (declared := project.definitions.endpoints.get(endpoint)) is not None and declared.device in ON_GPUS:
        raise Invalid(
            f"Endpoint {endpoint!r} has device={declared.device!r}: machines with GPUs are not predicted.",
            fix=f"measure it there: `mainspring bench {endpoint}`.",
        )
    others = [read_machine(path) for path in described]
    if twice := [name for name, count in Counter([HERE, *(each.name for each in others)]).items() if count > 1]:
        raise Invalid(f"Two machines are called {twice[0]!r}.", fix="measure one as `advise machine --name ANOTHER`.")
    offers = known_offers(prices_folder(project))
    listed = [*(find(offers, each) for each in machines), *of_region(offers, region)]
    wanted, of = (demand, "stated") if demand is not None else _busiest(project, endpoint)
    with _two_cores():
        baseline, found, simulated = _tested(project, endpoint, seconds, again, told)
    told("measuring this machine")
    here, bundle = probe(HERE), project.bundles.load(baseline.digest)
    work = _work(bundle)
    if not baseline.capacity or simulated <= 0:
        raise Invalid(
            f"{endpoint} meets its deadline of {found.route.deadline_us / 1000:g} ms at no load here.",
            fix="state a longer deadline, or make the model faster: `mainspring optimize`.",
        )
    # The two are measured apart: by the wall under load, and by processor time. The middle is taken.
    tested, failed = limits(baseline.points, baseline.capacity)
    ratio = tested / simulated
    alone, apart = Capacities(found.endpoint((1, 1), 1.0), ratio**0.5), max(ratio, 1 / ratio) ** 0.5
    near = Interval(_CHANCE * baseline.capacity / tested / apart, 1.0, failed / tested * apart)
    told("predicting")
    places = [
        this(project, here, alone),
        *(described_machine(each, here, alone, work) for each in others),
        *listed_machines(project, {each.name: each for each in listed}.values(), offers, here, alone, speed),
    ]
    large = _memory(project, bundle)
    fitting = [each for each in places if each.memory_gib is None or each.memory_gib >= _needed(each.processes, large)]
    kinds = {each.name: each for each in fitting}
    chosen = choose([_kind(each, near) for each in fitting], wanted, spare=spare)
    int8, not_int8 = _in_int8(alone, bundle, work, near)
    return SizeReport(
        endpoint=endpoint,
        version=found.version,
        demand=wanted,
        of=of,
        deadline_ms=found.route.deadline_us / 1000,
        spare=spare,
        capacity=baseline.capacity,
        simulated=simulated,
        tested=f"{format_instant(baseline.measured_at)}, {baseline.machine}",
        operations=work.operations if work is not None and work.known else None,
        int8=int8,
        not_int8=not_int8,
        choices=[_choice(each, kinds[each.kind.name], wanted) for each in chosen[:_MOST]],
        left_out=_left_out(places, fitting, chosen),
        assumed=[*_apart(tested, simulated, found), *_assumed(large)],
        warnings=[*_warnings(project, offers, chosen[:_MOST]), *_currencies(kinds[each.kind.name] for each in chosen)],
    )


def describe_machine(name: str = "") -> Speed:
    """Measure this machine, for `size` elsewhere."""
    return probe(name)


def _busiest(project: Project, endpoint: str) -> tuple[float, str]:
    since = project.clock.now() - _LOOKED_BACK
    windows = [each for each in project.monitors.windows(endpoint, since) if each.predictions and each.end > each.start]
    if not windows:
        raise NotFound(
            f"No traffic of {endpoint!r} is recorded in the last four weeks.",
            fix="state the load to plan for: --rate 200.",
        )
    busiest = max(windows, key=lambda each: each.predictions / (each.end - each.start))
    rate = busiest.predictions / (busiest.end - busiest.start) * SECOND
    return rate, f"busiest window of four weeks, from {format_instant(busiest.start)}, each prediction a request"


def _tested(
    project: Project, endpoint: str, seconds: float, again: bool, told: Told
) -> tuple[Baseline, Measured, float]:
    """Return a load test, the endpoint as it is here, and its highest load by simulation."""
    route, how = route_of(project, endpoint), How(seconds=seconds)
    bundle = project.bundles.load(max(route.arms, key=lambda each: each.weight).digest)
    baseline = None if again else _best(project, route, bundle)
    if baseline is None:
        told("load test")
        baseline = bench(project, endpoint, how, told)
    found = measured(project, endpoint, _at(baseline), seconds=2 * seconds, told=told)
    simulated = Capacities(found.endpoint((1, 1), 1.0)).at(1.0)
    for _ in range(_REPEATS):
        if (baseline.capacity or 0.0) >= _DISTURBED * simulated:
            break
        told(f"load test again: it found {baseline.capacity or 0:,.0f} requests/s, and {simulated:,.0f} are expected")
        another = bench(project, endpoint, how, told)
        baseline = max(baseline, another, key=lambda each: each.capacity or 0.0)
    return baseline, found, simulated


def _best(project: Project, route: Route, bundle: Bundle) -> Baseline | None:
    """Return the load test with the highest capacity of the newest ones: other work on the machine only lowers it.

    It is one of the same version with the same deadline, of requests with a row, on a machine like this with two cores.
    """
    alike = {
        "digest": bundle.digest, "deadline_us": route.deadline_us, "rows": 1, "asked_by": asked_by(bundle),
        "machine": machine_of(own_core=usable_cores() > 1),
    }  # fmt: skip
    tests = [
        each for each in project.baselines.newest(route.endpoint, _TESTS)
        if each.capacity and all(getattr(each, name) == value for name, value in alike.items())
    ]  # fmt: skip
    return max(tests, key=lambda each: each.capacity or 0.0, default=None)


@contextmanager
def _two_cores() -> Iterator[None]:
    """Run the block on two cores: a gateway that it starts has one, and its clients have the other."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(0, cores[-2:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _at(baseline: Baseline) -> Instants:
    """Return the instants of half of the highest load, for ten seconds."""
    rate = max(1.0, 0.5 * (baseline.capacity or 1.0))
    return np.linspace(0, 10 * SECOND, round(10 * rate), dtype=np.int64)


def _work(bundle: Bundle) -> Work | None:
    if MODEL not in bundle.files:
        return None
    try:
        return work_of(bundle.files[MODEL], _shapes(bundle))
    except MissingExtra:
        return None


def _shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a golden row of tensors."""
    if not bundle.manifest.tensors or GOLDEN not in bundle.files:
        return {}
    golden = msgspec.json.decode(bundle.files[GOLDEN], type=Golden)
    return {name: np.shape(values) for name, values in golden.inputs.items()}


def _kind(machine: Machine, near: Interval) -> Kind:
    count = machine.processes
    low, value, high = (count * alone.at(speed) for alone, speed in machine.cores)
    rate = Interval(low, value, high).times(near)
    return Kind(name=machine.name, processes=count, rate=rate, hour=machine.hour)


def _choice(choice: Choice, machine: Machine, demand: float) -> SizeChoice:
    each = demand / choice.count / machine.processes
    high, value, low = (
        (under(slowed(alone.endpoint, speed), each).quantile_us(0.99) or 0.0) / 1000
        for alone, speed in machine.cores
    )  # fmt: skip
    rate = choice.kind.rate
    return SizeChoice(
        machine=machine.name,
        processes=machine.processes,
        count=choice.count,
        currency=machine.currency,
        hour=choice.hour,
        month=None if choice.hour is None else choice.hour * MONTH_HOURS,
        rate=Bounds(rate.low, rate.value, rate.high),
        p99_ms=Bounds(low, value, high),
        headroom=choice.headroom(demand).value,
        headroom_lost=choice.headroom(demand, lost=1).value,
        unknown=list(machine.unknown),
    )


def _in_int8(alone: Capacities, bundle: Bundle, work: Work | None, near: Interval) -> tuple[Bounds | None, str]:
    """Return the load in 8 bits, or why it is not predicted."""
    if work is None:
        return None, "the model is no ONNX graph that can be read here"
    if why := work.not_in_int8:
        return None, why
    try:
        layers = measured_layers(bundle.files[MODEL], work, alone.endpoint.times.sizes, _shapes(bundle))
    except Invalid as error:
        return None, error.what
    rate = int8_rate(alone, layers).times(near)
    return Bounds(rate.low, rate.value, rate.high), ""


def int8_rate(alone: Capacities, layers: Mapping[int, Layers]) -> Interval:
    """Return the highest load of a process whose model has layers of 8 bits."""
    ratios = {rows: layers[rows].in_int8(took) for rows, took in undisturbed_us(alone.endpoint.times).items()}

    def rate(end: str) -> float:
        model = {rows: getattr(each, end) for rows, each in ratios.items()}
        return Capacities(moved(alone.endpoint, model), alone.factor).at(1.0)

    low, value, high = rate("low"), rate("value"), rate("high")
    return Interval(min(low, value), value, max(high, value))  # each is searched, to a few per cent


def _memory(project: Project, bundle: Bundle) -> int:
    from mainspring.project.model_memory import model_memory

    known = model_memory(project.settings, "").sizes.find(bundle.digest)
    files = sum(map(len, bundle.files.values()))
    return files * 2 if known is None else known.nbytes


def _needed(processes: int, model: int) -> float:
    return processes * (_PROCESS_GIB + model / 2**30)


def _left_out(places: Sequence[Machine], fitting: Sequence[Machine], chosen: Sequence[Choice]) -> list[str]:
    small = [each.name for each in places if each not in fitting]
    found = [f"{each}: too little memory" for each in small]
    slow = {each.name for each in fitting} - {each.kind.name for each in chosen}
    found += [f"{each}: it does not answer in time, or over 1,000 of them are needed" for each in sorted(slow)]
    if len(chosen) > _MOST:
        found.append(f"{len(chosen) - _MOST} dearer kinds")
    return found


def _apart(tested: float, simulated: float, found: Measured) -> list[str]:
    """Return how far a load test and a simulation are apart, for people."""
    said = []
    if not _DISTURBED < tested / simulated < 1 / _DISTURBED:
        said.append(
            f"the middle of {tested:,.0f} requests/s, which the load test found on one core, and {simulated:,.0f}, "
            "which the processor time allows: other work may have disturbed either"
        )
    if found.inline and found.busy_share < 1 - _OTHERS:
        said.append(f"the gateway had {found.busy_share:.0%} of its core when callers left it no pause: other work, "
                    "or callers that are too slow, had the rest")  # fmt: skip
    return said


def _assumed(model: int) -> list[str]:
    return [
        "a gateway's process for each core (`workers` of the profile), connections spread evenly over them",
        f"{_PROCESS_GIB:g} GiB a process and {model / 2**20:,.0f} MiB for its model",
        "requests come independently of each other (Poisson); no network between caller and machine",
        "the online store, if it is another machine, answers there as fast as here",
    ]


def _currencies(machines: Iterable[Machine]) -> list[str]:
    known = sorted({each.currency for each in machines if each.currency})
    if len(known) < 2:
        return []
    rate = f'[profiles.NAME.prices] exchange = {{ {known[1]} = "1.08 {known[0]}" }}'
    return [f"The prices are in {' and '.join(known)}, and are not compared: state the rate, {rate}."]


def _warnings(project: Project, offers: Sequence[Offer], chosen: Sequence[Choice]) -> list[str]:
    now, by_name = project.wall.now(), {each.name: each for each in offers}
    said = (age_warning(by_name[each.kind.name], now) for each in chosen if each.kind.name in by_name)
    return [each for each in said if each]
