"""Price of a deployment: of its pieces' machines, cores, memory and storage, for a month."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.money import MONTH_HOURS, MixedCurrencies, Money
from mainspring.core.settings import OwnPrices
from mainspring.cost.catalogue.kept import known_offers
from mainspring.cost.catalogue.offers import Offer
from mainspring.cost.machine import exchanged, instance_hour
from mainspring.cost.rates import Rates
from mainspring.deploy.targets.model import Change, Needs
from mainspring.operations.prices import machine_rates_of, prices_folder
from mainspring.project import Project

_GIB = 2**30


class DeployCost(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a month of a deployment.

    Attributes:
        least, most: With the least and the most replicas, in units of the currency.
        sources: Origins and dates of the prices.
        unknown: Pieces without a known price, with the reason.
    """

    currency: str
    least: float
    most: float
    sources: list[str]
    unknown: list[str]


def month_cost(project: Project, changes: Sequence[Change]) -> DeployCost | None:
    """Return the price of what a plan leaves there; `None` if no piece of it has a price of its own.

    Machines of a catalogue cost what the profile says they do, else their list price on demand. Cores, memory and GPUs
    alone cost what those of this machine do, if the profile states its price. Prices in a second currency are unknown,
    unless the profile has its rate of exchange.
    """
    asked = [(each.piece, each.needs) for each in changes if each.needs is not None and each.action != "remove"]
    if not asked:
        return None
    offers = known_offers(prices_folder(project)) if any(needs.instance for _, needs in asked) else []
    rates, no_rates = _rates(project)
    least: Money | None = None
    most: Money | None = None
    sources, unknown = dict[str, None](), list[str]()
    for piece, needs in asked:
        try:
            hour, source = _hour(needs, offers, project.settings.prices, rates, no_rates)
            if least is not None:
                hour = exchanged(hour, least.currency, project.settings.prices.exchange)
            low = hour.times(MONTH_HOURS * needs.count)
            high = hour.times(MONTH_HOURS * max(needs.count, needs.most))
            least, most = (low, high) if least is None or most is None else (least + low, most + high)
            sources[source] = None
        except (NotFound, MixedCurrencies) as error:
            unknown.append(f"{piece}: {error.what}")
    return DeployCost(
        currency=least.currency if least else "",
        least=least.units if least else 0.0,
        most=most.units if most else 0.0,
        sources=list(sources),
        unknown=unknown,
    )


def _rates(project: Project) -> tuple[Rates | None, str]:
    try:
        return machine_rates_of(project), 'the profile states no price: [profiles.NAME.prices] machine = "0.40 EUR"'
    except MainspringError as error:
        return None, error.what


def _hour(
    needs: Needs, offers: Sequence[Offer], prices: OwnPrices, rates: Rates | None, no_rates: str
) -> tuple[Money, str]:
    """Return the price of an hour of one, and its source.

    Raises:
        NotFound: It is unknown.
    """
    if needs.instance:
        money, source, date = instance_hour(prices, offers, needs.instance, "on_demand")
        if needs.surcharge and needs.instance not in prices.instances:
            money, source = money.times(1 + needs.surcharge), f"{source}, and {needs.surcharge:.0%} of the service"
        return money, f"{source}{f', {date}' if date else ''}"
    if rates is None:
        raise NotFound(no_rates)
    hour = Money.of(rates.cpu_hour, needs.cpu, rates.currency)
    hour += Money.of(rates.memory_gib_hour, needs.memory / _GIB, rates.currency)
    hour += Money.of(rates.gpu_hour, needs.gpus, rates.currency)
    if needs.storage:
        if not rates.storage_gib_month:
            raise NotFound("the profile states no price of storage")
        cheapest = min(rates.storage_gib_month.values())
        hour += Money.of(cheapest / MONTH_HOURS, needs.storage / _GIB, rates.currency)
    return hour, f"{rates.source or 'own price'}{f', {rates.as_of}' if rates.as_of else ''}"
