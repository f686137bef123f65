"""Offers gathered from a provider's file, a price at a time, with a count of what was not understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.money import check_currency
from mainspring.cost.catalogue.offers import PURCHASES, Offer, shipped

_EXAMPLES = 5
_MOST_OFFERS = 500_000
_MOST_PRICE = 1e6  # of an hour
# Raised where an entry has another form than the provider documents: such entries are counted.
ODD = (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError)
ODD_FORM = "the entry has another form than documented"


class Gathered:
    """Offers of one file of one provider. A file has one currency."""

    def __init__(self, provider: str, name: str, source: str) -> None:
        self._provider, self.name, self._source = provider, name, source
        self.read = 0
        self.others = 0
        self.not_understood: Counter[str] = Counter()
        self.examples: list[str] = []
        self.date = ""
        self._currency = ""
        self._fields: dict[tuple[str, str], dict[str, Any]] = {}

    def other(self) -> None:
        """Count a row that is about something else than the hour of a machine."""
        self.others += 1

    def unclear(self, why: str, where: str) -> None:
        self.not_understood[why] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {why}")

    def currency(self, code: object, where: str) -> str:
        """Return the file's currency.

        Raises:
            Invalid: It is missing, unknown, or another than the file's before.
        """
        if not isinstance(code, str) or not code.strip():
            raise Invalid(
                f"{self.name} names no currency at {where}.", fix="fetch the file anew: its rows name their currency."
            )
        check_currency(code, f"{self.name}, {where},")
        if self._currency and code != self._currency:
            raise Invalid(
                f"{self.name} has prices in {self._currency} and, at {where}, in {code}: currencies are not mixed.",
                fix="import one file for each currency.",
            )
        self._currency = code
        return code

    def number(self, given: object, where: str) -> float | None:
        """Return a price; one that is none is counted as not understood."""
        try:
            price = float(given)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            self.unclear("the price is no number", where)
            return None
        if not isfinite(price) or not 0 <= price < _MOST_PRICE:
            self.unclear("the price is negative, not finite or over a million", where)
            return None
        return price

    def offer(self, region: str, instance: str, where: str, shape: Mapping[str, Any], **prices: float) -> None:
        """Add prices to the offer of an instance in a region. A second price that differs is not understood."""
        if not region or not instance or "/" in region + instance:
            self.unclear("the row names no region or no instance", where)
            return
        fields = self._fields.get((region, instance))
        if fields is None:
            if len(self._fields) >= _MOST_OFFERS:
                raise Invalid(f"{self.name} has over {_MOST_OFFERS:,} offers.", fix="import fewer regions: --region.")
            fields = self._fields[region, instance] = dict(shape)
        for purchase, price in prices.items():
            if fields.setdefault(purchase, price) != price:
                self.unclear("the same offer has two prices", where)

    def offers(self) -> list[Offer]:
        return [
            msgspec.convert(
                {
                    **fields,
                    "provider": self._provider,
                    "region": region,
                    "instance": instance,
                    "currency": self._currency,
                    "source": self._source,
                    "date": self.date,
                },
                Offer,
            )
            for (region, instance), fields in sorted(self._fields.items())
            if any(fields.get(each) is not None for each in PURCHASES)
        ]


def known_shape(provider: str, instance: str) -> dict[str, Any]:
    """Return the cores, memory and GPUs that the shipped catalogue states of an instance; empty if it is not there."""
    return _shapes().get((provider, instance), {})


def _shapes() -> dict[tuple[str, str], dict[str, Any]]:
    if not _SHAPES:
        for each in shipped():
            _SHAPES[each.provider, each.instance] = {name: getattr(each, name) for name in SHAPE}
    return _SHAPES


SHAPE = ("vcpus", "cores", "memory_gib", "gpu", "gpus", "gpu_gib", "interconnect")
_SHAPES: dict[tuple[str, str], dict[str, Any]] = {}
