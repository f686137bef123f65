"""Rates of this machine: from the profile's own prices, or the list price of what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.core.money import MixedCurrencies, Money
from mainspring.core.settings import OwnPrices
from mainspring.cost.catalogue.offers import OLD_DAYS, Offer, age_days, find, shipped_storage
from mainspring.cost.rates import Rates, machine_rates

OWN = "own price"


def price_machine(
    prices: OwnPrices, offers: Sequence[Offer], *, cores: float, memory_gib: float, gpus: int = 0, gpu: str = ""
) -> Rates | None:
    """Return the rates of a machine of that size; `None` if the profile states neither a price nor an instance.

    Raises:
        NotFound: The catalogue lacks the instance, or the price of its purchase.
        MixedCurrencies: Prices are in two currencies, and the profile states no rate of exchange.
    """
    if prices.machine is None and not prices.instance:
        return None
    hour, source, date = _hour(prices, offers)
    currency = prices.currency or hour.currency
    listed = shipped_storage().get(_place(prices.instance))
    known = {} if listed is None else {name: _money(price, listed.currency) for name, price in listed.month.items()}
    storage = {**known, **prices.storage}
    coming = prices.in_gib or (_money(listed.in_gib, listed.currency) if listed else Money(currency))
    leaving = prices.out_gib or (_money(listed.out_gib, listed.currency) if listed else Money(currency))
    return machine_rates(
        exchanged(hour, currency, prices.exchange).units,
        currency,
        cores=cores,
        memory_gib=memory_gib,
        gpus=gpus,
        gpu=gpu,
        storage_gib_month={name: exchanged(each, currency, prices.exchange).units for name, each in storage.items()},
        in_gib=exchanged(coming, currency, prices.exchange).units,
        out_gib=exchanged(leaving, currency, prices.exchange).units,
        source=source,
        as_of=date,
    )


def profile_currency(prices: OwnPrices) -> str:
    """Return the currency in which the profile's amounts are shown; empty if it is that of a listed price."""
    stated = prices.machine or prices.instances.get(prices.instance)
    return prices.currency or ("" if stated is None else stated.currency)


def exchanged(amount: Money, currency: str, exchange: Mapping[str, Money]) -> Money:
    """Return the amount in a currency, by the profile's rates of exchange.

    Raises:
        MixedCurrencies: No rate between the two is stated.
    """
    if amount.currency == currency:
        return amount
    there, back = exchange.get(amount.currency), exchange.get(currency)
    if there is not None and there.currency == currency:
        return Money(currency, round(amount.nanos * there.nanos / 10**9))
    if back is not None and back.currency == amount.currency:
        return Money(currency, round(amount.nanos * 10**9 / back.nanos))
    raise MixedCurrencies(currency, amount.currency)


def age_warning(offer: Offer, now: int) -> str | None:
    """Return the warning that a price is old, `None` if it is not."""
    days = age_days(offer, now)
    if days <= OLD_DAYS:
        return None
    return f"The price of {offer.name} is of {offer.date}, {days} days old: import the provider's price file."


def _hour(prices: OwnPrices, offers: Sequence[Offer]) -> tuple[Money, str, str]:
    if prices.machine is not None:
        return prices.machine, OWN, ""
    return instance_hour(prices, offers, prices.instance, prices.purchase)


def instance_hour(prices: OwnPrices, offers: Sequence[Offer], name: str, purchase: str) -> tuple[Money, str, str]:
    """Return the price of an hour of `PROVIDER/REGION/INSTANCE`, its source and its date; an own price has none.

    Raises:
        NotFound: The catalogue lacks it, or the price of that purchase.
    """
    if (own := prices.instances.get(name)) is not None:
        return own, f"{OWN} of {name}", ""
    offer = find(offers, name)
    off = f", {prices.discount:.0%} off" if prices.discount else ""
    source = f"{offer.name} {purchase.replace('_', ' ')}{off}: {offer.source}"
    return _money(offer.hour(purchase) * (1 - prices.discount), offer.currency), source, offer.date


def _money(units: float, currency: str) -> Money:
    return Money.of(units, 1.0, currency)


def _place(instance: str) -> tuple[str, str]:
    provider, _, rest = instance.partition("/")
    return provider, rest.partition("/")[0]
