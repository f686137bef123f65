"""Cost of usage: a machine's price is divided among its users, Mainspring itself, other processes, and nobody.

For each machine and day, of processor time, memory and GPUs:

- direct: what a subject used, as it was metered.
- platform: what `up` and its children used, without the subjects among them.
- other processes: what else used the machine, without the subjects that were metered outside `up`.
- idle: the rest of the machine's capacity.

These add up to the capacity, and their money to the machine's price for that time, to the last billionth
(`splitting.shares`). Where more was metered than the machine has, for example because amounts of one hour were stored
in the next, idle and then other processes are less, and the total is what was metered if that is still more. Storage,
bytes and tokens have prices of their own. By OpenCost's rule idle and shared costs stay apart, unless they are spread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from mainspring.core.money import MONTH_HOURS, NANOS
from mainspring.core.time import HOUR, SECOND
from mainspring.cost.rates import Rates
from mainspring.cost.splitting import shares
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage

PLATFORM, OTHER = "platform", "other processes"
OF_MACHINES = ("cpu", "memory", "gpu")
_GIB = 1 << 30
_CHARGED_NANOS = 1_000  # of a millionth


class Part(NamedTuple):
    """A part of a day's cost. `nanos` is `None` where the price is not known."""

    machine: str
    day: int
    subject: Subject
    measure: str
    amount: int
    nanos: int | None


def parts(usages: Iterable[Usage], rates: Callable[[str], Rates | None]) -> list[Part]:
    """Return the parts of the cost of usage.

    Args:
        usages: Of whole days, with their machines.
        rates: Returns a machine's rates; `None` where none are known.
    """
    grouped: dict[tuple[str, int, str], dict[Subject, int]] = defaultdict(dict)
    for each in usages:
        of = grouped[each.machine, each.start, each.measure]
        of[each.subject] = of.get(each.subject, 0) + each.amount
    found = []
    for (machine, day, measure), amounts in sorted(grouped.items(), key=lambda item: item[0]):
        users = _divided(amounts) if measure in OF_MACHINES else amounts
        price = _unit_price(measure, rates(machine))
        nanos: Iterable[int | None]
        if isinstance(price, Decimal):
            nanos = shares(round(price * sum(users.values())), list(users.values())) if users else ()
        else:  # by the subject's version: its class of storage
            nanos = [_rounded(price(subject), amount) for subject, amount in users.items()]
        for (subject, amount), cost in zip(users.items(), nanos, strict=True):
            if amount:
                found.append(Part(machine, day, subject, measure, amount, cost))
    return found


def _divided(amounts: Mapping[Subject, int]) -> dict[Subject, int]:
    """Return the users of one measure of a machine: the subjects, the platform, other processes and nobody."""
    machine = {subject.id: amount for subject, amount in amounts.items() if subject.kind == MACHINE}
    users = {subject: amount for subject, amount in amounts.items() if subject.kind != MACHINE}
    inside = sum(amount for subject, amount in users.items() if subject.inside)
    platform = max(0, machine.get(OWN, 0) - inside)
    left = max(0, machine.get(CAPACITY, 0) - platform - sum(users.values()))
    idle = min(left, machine.get(IDLE, 0))
    rest = {PLATFORM: platform, OTHER: left - idle, IDLE: idle}
    return {**users, **{Subject(MACHINE, id): amount for id, amount in rest.items() if amount}}


def _unit_price(measure: str, rates: Rates | None) -> Decimal | Callable[[Subject], Decimal | None]:
    """Return the price, in billionths, of one unit of a measure; a function where subjects have different ones."""
    if measure == "charged":
        return Decimal(_CHARGED_NANOS)
    if rates is None:
        return lambda _: None
    prices = {
        "cpu": (rates.cpu_hour, HOUR),
        "memory": (rates.memory_gib_hour, _GIB * (HOUR // SECOND)),
        "gpu": (rates.gpu_hour, HOUR),
        "in": (rates.in_gib, _GIB),
        "out": (rates.out_gib, _GIB),
    }
    if measure in prices:
        price, units = prices[measure]
        return Decimal(price) * NANOS / units
    if measure == "storage":
        return lambda subject: _storage_price(rates, subject.version)
    return lambda _: Decimal(0)  # a count


def _storage_price(rates: Rates, kind: str) -> Decimal | None:
    price = rates.storage_gib_month.get(kind)
    return None if price is None else Decimal(price) * NANOS / (_GIB * MONTH_HOURS)


def _rounded(price: Decimal | None, amount: int) -> int | None:
    return None if price is None else round(price * amount)


def spread(found: Iterable[Part], of: Iterable[str]) -> list[Part]:
    """Return parts where the cost of the platform or of idle is divided among subjects, by their direct cost that day
    and on that machine; where there is none it stays.

    Args:
        of: What is spread: `PLATFORM`, `IDLE`, or both.
    """
    chosen, by_place = set(of), defaultdict(list)
    for part in found:
        by_place[part.machine, part.day].append(part)
    return [each for place in by_place.values() for each in _spread(place, chosen)]


def _spread(place: list[Part], chosen: set[str]) -> Iterator[Part]:
    shared = [part for part in place if part.subject.kind == MACHINE and part.subject.id in chosen and part.nanos]
    direct = [part for part in place if part.subject.kind != MACHINE and part.nanos]
    if not shared or not direct:
        yield from place
        return
    more = shares(sum(part.nanos or 0 for part in shared), [part.nanos or 0 for part in direct])
    yield from (part._replace(nanos=0) if part in shared else part for part in place if part not in direct)
    for part, extra in zip(direct, more, strict=True):
        yield part._replace(nanos=(part.nanos or 0) + extra)
