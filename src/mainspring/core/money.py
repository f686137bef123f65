"""Amounts of money: whole billionths of one currency, so that a sum over months is exact."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Self

import msgspec

from mainspring.core.errors import Invalid

NANOS = 1_000_000_000  # of a unit of the currency
MONTH_HOURS = 730  # a twelfth of the 8,760 of a year, as providers count
_MOST = 10**12  # units
# ISO 4217, list one, of 2024, without funds, metals and test codes.
_CODES = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT
MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES
VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())


class MixedCurrencies(Invalid):
    """Amounts of two currencies have no sum."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(
            f"{one} and {other} are not added: they are two currencies.",
            fix=f'state the rate: [profiles.NAME.prices] exchange = {{ {other} = "1.08 {one}" }}.',
        )


class Money(msgspec.Struct, frozen=True, order=False):
    """An amount of one currency, in billionths of its unit."""

    currency: str
    nanos: int = 0

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.currency, self.nanos + other.nanos)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.currency, self.nanos - other.nanos)

    def times(self, factor: float) -> Money:
        """Return the amount `factor` times, rounded once."""
        return Money(self.currency, round(self.nanos * Decimal(factor)))

    @property
    def units(self) -> float:
        """Amount in units of the currency, to be shown: sums are made of `nanos`."""
        return self.nanos / NANOS

    @classmethod
    def of(cls, rate: float, quantity: float, currency: str) -> Self:
        """Return the cost of `quantity` at `rate` units of the currency each, rounded once."""
        return cls(currency, round(Decimal(rate) * Decimal(quantity) * NANOS))

    def __str__(self) -> str:
        return f"{self.units:,.2f} {self.currency}"

    def _same(self, other: Money) -> None:
        if other.currency != self.currency:
            raise MixedCurrencies(self.currency, other.currency)


def parse_money(text: object, name: str) -> Money:
    """Return the amount that a text like `0.40 EUR` states.

    Args:
        name: Of the setting or argument, for the error.

    Raises:
        Invalid: It is not an amount of 0 or more and a currency of ISO 4217.
    """
    number, _, currency = str(text).strip().partition(" ")
    currency = currency.strip()
    fix = f'write a number and a currency: {name.rpartition(" ")[2]} = "0.85 EUR".'
    try:
        amount = Decimal(number)
    except InvalidOperation:
        raise Invalid(f"{name} is {str(text)!r}.", fix=fix) from None
    if not currency:
        raise Invalid(f"{name} is {str(text)!r}: it names no currency.", fix=fix)
    check_currency(currency, name)
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise Invalid(f"{name} is {str(text)!r}: an amount is 0 or more, and finite.", fix=fix)
    return Money(currency, round(amount * NANOS))


def check_currency(currency: str, name: str) -> str:
    """Return the code.

    Raises:
        Invalid: ISO 4217 has no such currency.
    """
    if currency not in CURRENCIES:
        raise Invalid(f"{name} is in {currency!r}, which is no currency of ISO 4217.", fix="write a code like EUR.")
    return currency
