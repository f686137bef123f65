"""Savings that the metered use of a project suggests, each with its evidence and what it assumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.money import NANOS, Money
from mainspring.core.time import DAY, format_instant
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import Offer
from mainspring.cost.machine import age_warning
from mainspring.cost.rates import Rates
from mainspring.cost.saving.idle import FEW, LEAST_DAYS, idle_endpoints
from mainspring.cost.saving.tiers import OBJECT, TERMS, Kept, cheapest
from mainspring.cost.statement import Part, parts
from mainspring.cost.usage import ENDPOINT, TABLE, Usage
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.advise.buying import commitments, regions, spot
from mainspring.operations.advise.saving_model import (
    Asked,
    Prices,
    Saving,
    SavingsReport,
    Silent,
    instance_of,
)
from mainspring.operations.data.versions import vacuum
from mainspring.operations.prices import machine_rates_of, prices_folder
from mainspring.project import Project

_GIB, _TABLE_GIB = 1 << 30, 1.0
_FILES = 100  # that are not needed
_FILE_GIB = 0.125  # of a compacted file of a table


def savings(project: Project, *, days: int = 90, asked: Asked | None = None, files: bool = True) -> SavingsReport:
    """Return what would save, from the use of the last days.

    Args:
        files: Whether the files of the lake are listed, while which writers of a table wait.

    Raises:
        Invalid: A number or a trace cannot be read.
    """
    if not 1 <= days <= 400:
        raise Invalid(f"days={days}: usage is kept for 400 days.", fix="look at 1 to 400.")
    given, now = asked or Asked(), project.wall.now()
    first = now - now % DAY - days * DAY
    usages, rates = project.usage.read(first, now + 1), _rates(project)
    found = list(parts(usages, lambda _: rates))
    metered = sorted({each.start for each in usages})
    offers = known_offers(prices_folder(project))
    prices = Prices(project.settings.prices, "" if rates is None else rates.currency)
    advice: list[Saving] = []
    none: dict[str, str] = {}
    kinds: dict[str, Callable[[], Iterable[Saving]]] = {
        "idle": lambda: _idle(project, found, rates),
        "storage": lambda: _storage(project, usages, rates, prices, given, files=files),
        "commitment": lambda: commitments(project, usages, metered, offers, prices),
        "spot": lambda: spot(project, offers, prices, given, now - days * DAY),
        "region": lambda: regions(project, offers, prices, given),
    }
    for kind, advise in kinds.items():
        try:
            made = list(advise())
        except Silent as reason:
            none[kind] = str(reason)
            continue
        advice += made
        if not made:
            none[kind] = "nothing would cost less"
    return SavingsReport(
        project=project.settings.project,
        since=format_instant(first)[:10],
        days=len(metered),
        currency=prices.currency,
        savings=sorted(advice, key=lambda each: (each.month is None, -(each.month or 0.0), each.subject)),
        none=none,
        warnings=_warnings(project, offers, now),
    )


def _rates(project: Project) -> Rates | None:
    try:
        return machine_rates_of(project)
    except MainspringError:  # `prices show` says what is wrong with them
        return None


def _idle(project: Project, found: Sequence[Part], rates: Rates | None) -> Iterable[Saving]:
    by_day: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    last = max((each.day for each in found), default=0)  # of today a part is known
    for part in found:
        if part.subject.kind == ENDPOINT and part.day < last:
            amounts = by_day[part.subject.id][part.day]
            amounts[0] += part.amount if part.measure == "requests" else 0
            amounts[1] += (part.nanos or 0) / NANOS
    served, requests, costs = project.routes.current(), {}, {}
    for endpoint, of in by_day.items():
        if endpoint in served:
            every = [of.get(day, [0.0, 0.0]) for day in range(min(of), last, DAY)]
            requests[endpoint], costs[endpoint] = [round(count) for count, _ in every], [cost for _, cost in every]
    longest = max(map(len, requests.values()), default=0)
    if longest < LEAST_DAYS:
        raise Silent(f"{longest} whole days of endpoints were metered, and {LEAST_DAYS} are needed")
    for each in idle_endpoints(requests, costs):
        asked = f"{each.requests:,} requests in {each.days} days, {each.quiet} of them without any"
        kept = f"; {each.cost:,.2f} {rates.currency} a month for its model and its work" if rates is not None else ""
        yield Saving(
            kind="idle", subject=each.endpoint, month=None if rates is None else each.saved, evidence=asked + kept,
            assumes=[
                f"an endpoint is idle with at most {FEW:g} request an hour",
                "the memory that it leaves is of use to others, or the machine can be smaller",
            ],
            do="Let its model leave memory while nobody asks, or retire it; small models can share a machine.",
            command=f'ms.Endpoint("{each.endpoint}", ..., executors=(0, 1))',
        )  # fmt: skip


def _needless(project: Project) -> int:
    try:
        return sum(vacuum(project, dry_run=True).values())
    except MainspringError:  # `data vacuum` says what is wrong with the lake
        return 0


def _storage(
    project: Project, usages: Sequence[Usage], rates: Rates | None, prices: Prices, given: Asked, *, files: bool
) -> Iterable[Saving]:
    kept = [each for each in usages if each.subject.kind == TABLE and each.measure == "storage"]
    if not kept:
        raise Silent("no storage was metered yet: the worker of `mainspring up` measures it once an hour")
    days = sorted({each.start for each in kept})
    last = days[-2] if len(days) > 1 else days[-1]  # the newest whole day
    sizes: dict[tuple[str, str], float] = defaultdict(float)
    for each in kept:
        if each.start == last:
            sizes[each.subject.id, each.subject.version] += each.amount / 24 / _GIB
    month = {} if rates is None else rates.storage_gib_month
    for (name, kind), gib in sizes.items():
        if name != f"lake/{PREDICTIONS}" or gib < _TABLE_GIB or project.settings.keep_predictions_us is not None:
            continue
        yield Saving(
            kind="storage", subject=name, month=0.5 * gib * month[kind] if kind in month else None,
            evidence=f"{gib:,.1f} GiB of logged predictions, which are kept for ever",
            assumes=["half of them are older than what anybody looks at"],
            do="State for how long predictions are kept.", command='keep_predictions = "180d"',
        )  # fmt: skip
    if files and (doomed := _needless(project)) >= _FILES:
        yield Saving(
            kind="storage", subject="lake", month=None,
            evidence=f"{doomed:,} files of the lake that neither a tag, nor the newest commit or version needs",
            assumes=["nobody reads versions without a tag"], do="Delete them.", command="mainspring data vacuum",
        )  # fmt: skip
    provider = project.settings.prices.instance.partition("/")[0]
    dollar = prices.worth(Money("USD", NANOS)) if OBJECT in month else 1.0
    terms = {name: each.times(dollar) for name, each in TERMS.get(provider, {}).items()}
    for (name, kind), gib in sizes.items():
        if kind != OBJECT or gib < _TABLE_GIB or provider not in TERMS or OBJECT not in month:
            continue
        table = Kept(gib=gib, files=max(1, round(gib / _FILE_GIB)), reads=given.reads, days=365)
        best, costs = cheapest(table, month, terms)
        if best != OBJECT:
            yield Saving(
                kind="storage", subject=name, month=costs[OBJECT] - costs[best],
                evidence=f"{gib:,.1f} GiB, a month in {prices.currency}: "
                + ", ".join(f"{each} {cost:,.2f}" for each, cost in costs.items()),
                assumes=[
                    f"all of it is read {given.reads:g} times a month (--reads)", "its files stay for a year",
                    f"files of {_FILE_GIB * 1024:g} MiB, as compaction leaves them",
                    "requests and least times at the provider's list prices of 2024",
                ],
                do=f"Move it to the class {best!r} by a rule of the bucket.",
            )  # fmt: skip


def _warnings(project: Project, offers: Sequence[Offer], now: int) -> list[str]:
    try:
        said = age_warning(instance_of(project, offers), now)
    except Silent:
        return []
    return [said] if said else []


def parse_trips(texts: Iterable[str]) -> dict[str, float]:
    """Return region -> round trip, ms, of texts such as `aws/eu-west-1=12`.

    Raises:
        Invalid: One is none.
    """
    found = {}
    for text in texts:
        region, _, trip = text.partition("=")
        try:
            found[region] = float(trip)
        except ValueError:
            found[region] = -1.0
        if region.count("/") != 1 or not 0 <= found[region] < 60_000:
            raise Invalid(f"{text!r} is no round trip.", fix="write a region and ms: aws/eu-west-1=12.")
    return found
