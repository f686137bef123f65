"""Prices of a profile: the table `[profiles.NAME.prices]`."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.money import Money, check_currency, parse_money
from mainspring.core.settings import OwnPrices
from mainspring.cost.catalogue.offers import PURCHASES

_AMOUNTS = ("machine", "in_gib", "out_gib")
_TABLES = ("instances", "storage", "exchange")
_FIELDS = (*_AMOUNTS, *_TABLES, "instance", "purchase", "discount", "currency", "regions")


def read_own_prices(given: Any) -> OwnPrices:
    """Return the checked prices of a profile.

    Raises:
        Invalid: A field is unknown, or an amount has no currency or is none.
    """
    if not isinstance(given, dict):
        raise Invalid(f"prices is {given!r}.", fix="write a table: [profiles.local.prices].")
    unknown = sorted(given.keys() - set(_FIELDS))
    if unknown:
        raise Invalid(f"prices has the unknown settings {unknown}.", fix=f"known: {sorted(_FIELDS)}.")
    amounts = {name: parse_money(given[name], f"prices.{name}") for name in _AMOUNTS if name in given}
    tables: dict[str, Any] = {name: _amounts(given.get(name, {}), f"prices.{name}") for name in _TABLES}
    for currency, worth in tables["exchange"].items():
        check_currency(currency, "prices.exchange")
        if not worth.nanos or worth.currency == currency:
            raise Invalid(f"prices.exchange has {currency} = {worth}.", fix='write the worth of one: USD = "0.92 EUR".')
    for name in filter(None, (given.get("instance"), *tables["instances"])):
        if str(name).count("/") != 2:
            raise Invalid(f"prices names the instance {name!r}.", fix="write PROVIDER/REGION/INSTANCE.")
    purchase, discount = given.get("purchase", "on_demand"), given.get("discount", 0.0)
    if purchase not in PURCHASES:
        raise Invalid(f"prices.purchase is {purchase!r}.", fix=f"write one of {', '.join(PURCHASES)}.")
    if isinstance(discount, bool) or not isinstance(discount, int | float) or not isfinite(discount):
        raise Invalid(f"prices.discount is {discount!r}.", fix="write a share: discount = 0.1.")
    if not 0 <= discount < 1:
        raise Invalid(
            f"prices.discount is {discount:g}.", fix="write a share of 0 or more and below 1: discount = 0.1."
        )
    regions = given.get("regions", [])
    if not isinstance(regions, list) or not all(isinstance(each, str) and each.count("/") == 1 for each in regions):
        raise Invalid(f"prices.regions is {regions!r}.", fix='list where data may live: regions = ["aws/eu-*"].')
    currency = str(given.get("currency", ""))
    return OwnPrices(
        instance=str(given.get("instance", "")),
        purchase=purchase,
        discount=float(discount),
        currency=check_currency(currency, "prices.currency") if currency else "",
        machine=amounts.get("machine"),
        in_gib=amounts.get("in_gib"),
        out_gib=amounts.get("out_gib"),
        regions=tuple(regions),
        **tables,
    )


def _amounts(given: Any, name: str) -> Mapping[str, Money]:
    if not isinstance(given, dict):
        raise Invalid(f"{name} is {given!r}.", fix=f'write a table: {name} = {{ "..." = "0.10 EUR" }}.')
    return {str(key): parse_money(value, f"{name}.{key}") for key, value in given.items()}
