"""Machines of which an endpoint's are chosen: this one, described ones, and those of the list of prices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.money import MixedCurrencies
from mainspring.cost.catalogue.offers import Offer, selected
from mainspring.cost.machine import exchanged, instance_hour, profile_currency
from mainspring.operations.prices import machine_rates_of, this_machine
from mainspring.project import Project
from mainspring.serving.sizing.capacity import Capacities, moved
from mainspring.serving.sizing.cores import multiple
from mainspring.serving.sizing.roofline import Interval, faster, undisturbed_us
from mainspring.serving.sizing.speed import Speed
from mainspring.serving.sizing.work import Work

HERE = "this machine"
_UNMEASURED = Interval(0.6, 1.0, 1.4)  # of a core that nobody measured, against one here
_SMT = Interval(1.0, 1.25, 1.5)  # of two virtual cores on a physical one, against one of them alone


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of which choices are made.

    Attributes:
        memory_gib: `None` where it is unknown.
        core: Speed of a core with all of them at work, against one alone of which `alone` is.
        alone: Highest loads of a process on a core, at the least speed that is expected of it, the likely, the most.
    """

    name: str
    processes: int
    memory_gib: float | None
    core: Interval
    alone: tuple[Capacities, Capacities, Capacities]
    hour: float | None
    currency: str
    unknown: tuple[str, ...] = ()

    @property
    def cores(self) -> Iterator[tuple[Capacities, float]]:
        """Highest loads of a core alone, and its speed with all at work: least, likely, most."""
        return zip(self.alone, (self.core.low, self.core.value, self.core.high), strict=True)


def this(project: Project, here: Speed, alone: Capacities) -> Machine:
    cores = usable_cores()
    try:
        rates = machine_rates_of(project)
    except MainspringError:  # `prices show` says what is wrong with them
        rates = None
    core = _each(multiple(here.together, cores), cores)
    hour, currency = (None, "") if rates is None else (rates.machine_hour, rates.currency)
    return Machine(HERE, cores, this_machine()[1], core, (alone,) * 3, hour, currency)


def read_machine(path: Path) -> Speed:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Speed)
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.", fix="name the file of that machine.") from error
    except (msgspec.DecodeError, Invalid) as error:
        raise Invalid(
            f"{path} describes no machine: {error}", fix="write it there: `mainspring advise machine --json > FILE`."
        ) from error


def described_machine(there: Speed, here: Speed, alone: Capacities, work: Work | None) -> Machine:
    """Return a machine where the model follows its roofline, and the gateway beside it Python."""
    endpoint, cores = alone.endpoint, int(there.cores)
    ratios = faster(undisturbed_us(endpoint.times), here, there, work)

    def on(end: str) -> Capacities:
        model = {rows: getattr(each, end) for rows, each in ratios.items()}
        return Capacities(moved(endpoint, model, there.scalar / here.scalar), alone.factor)

    known = work is not None and work.known
    unknown = () if known else ("the model's work: the interval has the ratios of all kernels",)
    core = _each(multiple(there.together, cores), cores)
    three = on("low"), on("value"), on("high")
    return Machine(there.name, cores, there.memory_gib, core, three, None, "", unknown)


def listed_machines(
    project: Project,
    some: Iterable[Offer],
    offers: Sequence[Offer],
    here: Speed,
    alone: Capacities,
    speed: float | None,
) -> Iterator[Machine]:
    for each in some:
        hour, currency = _hour(project, offers, each.name)
        core, unknown = _core(each, here, speed)
        if each.memory_gib is None:
            unknown = (*unknown, "its memory")
        yield Machine(each.name, each.vcpus or 1, each.memory_gib, core, (alone,) * 3, hour, currency, unknown)


def _core(offer: Offer, here: Speed, speed: float | None) -> tuple[Interval, tuple[str, ...]]:
    """Return the speed of a virtual core with all of them at work, and what is not known of it."""
    cores = offer.vcpus or 1
    core = _UNMEASURED if speed is None else Interval(0.9 * speed, speed, 1.1 * speed)
    unknown = ["the speed of its cores"] if speed is None else []
    if offer.cores is None:
        unknown.append("whether two of its virtual cores share one")
        whole = multiple(here.together, cores)
        law = Interval(0.5 * whole.low, 0.8 * whole.value, whole.high)
    elif offer.cores < cores:
        law = multiple(here.together, offer.cores).times(_SMT)
    else:
        law = multiple(here.together, cores)
    return core.times(_each(law, cores)), tuple(unknown)


def of_region(offers: Sequence[Offer], region: str) -> list[Offer]:
    if not region:
        return []
    provider, _, place = region.partition("/")
    found = [
        each for each in selected(offers, provider=provider, region=place, gpu="none", vcpus=1) if not each.managed
    ]
    if not found:
        known = sorted({f"{each.provider}/{each.region}" for each in offers})
        raise NotFound(f"The catalogue has no machines in {region!r}.", fix=f"name one of {', '.join(known[:12])}.")
    return found


def _hour(project: Project, offers: Sequence[Offer], name: str) -> tuple[float | None, str]:
    prices = project.settings.prices
    try:
        money, _, _ = instance_hour(prices, offers, name, prices.purchase if prices.instance else "on_demand")
    except NotFound:
        return None, ""
    with suppress(MixedCurrencies):
        money = exchanged(money, profile_currency(prices) or money.currency, prices.exchange)
    return money.units, money.currency


def _each(together: Interval, cores: int) -> Interval:
    return Interval(together.low / cores, together.value / cores, together.high / cores)
