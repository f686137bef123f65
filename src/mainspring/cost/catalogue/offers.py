"""Offers: a machine of a provider in a region, with its list prices by the hour.

The shipped catalogue is a snapshot of public lists: each row has its source and date, and a price that is not known is
empty. `low` and `high` bound a price on demand that was derived from another size's or changed since.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import cache
from math import isfinite
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.money import check_currency
from mainspring.core.nearest import meant
from mainspring.core.time import to_datetime

OLD_DAYS = 90
PURCHASES = ("on_demand", "spot", "one_year", "three_years", "block")
_HERE = Path(__file__).parent


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and the prices of its hour, in `currency`; `None` is unknown.

    Attributes:
        vcpus: Virtual cores; `cores`: physical ones.
        gpu: Kind of its GPUs, as `core.accelerators` names it; `gpu_gib`: memory of each.
        low, high: Bounds of `on_demand`.
        one_year, three_years: With a commitment of that length, without payment in advance.
        block: Reserved in blocks of days.
        date: Of the prices.
    """

    provider: str
    region: str
    instance: str
    currency: str
    source: str
    date: str
    vcpus: int | None = None
    cores: int | None = None
    memory_gib: float | None = None
    gpu: str = ""
    gpus: int = 0
    gpu_gib: float | None = None
    interconnect: str = ""
    on_demand: float | None = None
    low: float | None = None
    high: float | None = None
    spot: float | None = None
    one_year: float | None = None
    three_years: float | None = None
    block: float | None = None

    def __post_init__(self) -> None:
        check_currency(self.currency, f"The price of {self.name}")
        for name in (*PURCHASES, "low", "high"):
            price = getattr(self, name)
            if price is not None and not (isfinite(price) and price >= 0):
                raise Invalid(f"The price {name} of {self.name} is {price}.", fix="correct the price file.")

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.region}/{self.instance}"

    @property
    def managed(self) -> bool:
        """Whether it is rented as a part of a service, which runs containers on it, and not by itself."""
        return self.instance.startswith("ml.")

    def hour(self, purchase: str) -> float:
        """Return the price of an hour.

        Raises:
            NotFound: It is unknown.
        """
        price: float | None = getattr(self, purchase)
        if price is None:
            known = ", ".join(each for each in PURCHASES if getattr(self, each) is not None)
            raise NotFound(
                f"The {purchase} price of {self.name} is unknown; known: {known or 'none'}.",
                fix="import the provider's price file (mainspring prices import), or state your own price.",
            )
        return price


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of a GiB in a region: of a month by class, and of its transfer in and to the internet."""

    provider: str
    region: str
    currency: str
    month: dict[str, float]
    in_gib: float
    out_gib: float
    source: str
    date: str


def read_offers(lines: Iterable[str], name: str) -> Iterator[Offer]:
    """Yield the offers of a catalogue's CSV.

    Raises:
        Invalid: Its header or one of its values is wrong; the message names the line.
    """
    rows = csv.reader(lines)
    header = next(rows, [])
    needed = set(Offer.__struct_fields__)
    if set(header) != needed:
        missing, other = sorted(needed - set(header)), sorted(set(header) - needed)
        raise Invalid(
            f"{name} is no catalogue: its header lacks {missing} and has {other[:5]} beside.",
            fix="name the format of a provider's file: --format aws, azure or google.",
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise Invalid(f"{name}, line {number}: {len(row)} values for {len(header)} columns.")
        given = {column: value for column, value in zip(header, row, strict=True) if value}
        try:
            yield msgspec.convert(given, Offer, strict=False)
        except (msgspec.ValidationError, Invalid) as error:
            raise Invalid(f"{name}, line {number}: {error}") from error


def catalogue_lines(offers: Iterable[Offer]) -> Iterator[str]:
    """Yield the lines of a catalogue's CSV."""
    yield ",".join(Offer.__struct_fields__)
    for offer in offers:
        values = ("" if value in (None, 0, "") else str(value) for value in msgspec.structs.astuple(offer))
        yield ",".join(_quoted(value) for value in values)


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if any(each in value for each in ',"\r\n') else value


@cache
def shipped() -> tuple[Offer, ...]:
    """Return the shipped catalogue."""
    with (_HERE / "instances.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(read_offers(lines, "the shipped catalogue"))


@cache
def shipped_storage() -> dict[tuple[str, str], Storage]:
    """Return the shipped prices of storage and transfer, by provider and region."""
    found = {}
    with (_HERE / "storage.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            classes = {each: float(row[each]) for each in ("object", "infrequent", "archive", "disk") if row[each]}
            found[row["provider"], row["region"]] = Storage(
                provider=row["provider"],
                region=row["region"],
                currency=row["currency"],
                month=classes,
                in_gib=float(row["in_gib"]),
                out_gib=float(row["out_gib"]),
                source=row["source"],
                date=row["date"],
            )
    return found


def find(offers: Sequence[Offer], name: str) -> Offer:
    """Return the offer `PROVIDER/REGION/INSTANCE`.

    Raises:
        NotFound: The catalogue has no such provider, region or instance; the message says which.
    """
    parts = tuple(name.split("/"))
    if len(parts) != 3 or not all(parts):
        raise Invalid(f"{name!r} is no instance.", fix="write PROVIDER/REGION/INSTANCE: aws/eu-west-1/m7i.large.")
    left = list(offers)
    for at, (kind, wanted) in enumerate(zip(("provider", "region", "instance"), parts, strict=True)):
        known = sorted({getattr(each, kind) for each in left})
        if wanted not in known:
            where = "/".join(parts[:at])
            elsewhere = sorted({each.region for each in offers if (each.provider, each.instance) == (parts[0], wanted)})
            raise NotFound(
                f"The catalogue has no {kind} {wanted!r}{f' in {where}' if where else ''}.",
                fix=f"it is in {', '.join(elsewhere)}." if elsewhere else meant(wanted, known),
            )
        left = [each for each in left if getattr(each, kind) == wanted]
    return left[0]


def age_days(offer: Offer | Storage, now: int) -> int:
    """Days from the date of the prices to an instant; an unreadable date is a very old one."""
    try:
        return (to_datetime(now).date() - date.fromisoformat(offer.date)).days
    except ValueError:
        return 36_500


def selected(
    offers: Iterable[Offer],
    *,
    provider: str | None = None,
    region: str | None = None,
    gpu: str | None = None,
    memory_gib: float = 0.0,
    vcpus: int = 0,
) -> list[Offer]:
    """Return the offers that have at least so much. `gpu` compares without case: "any" has any, "none" has none."""
    wanted = gpu.lower() if gpu else None
    return [
        each
        for each in offers
        if provider in (None, each.provider)
        and region in (None, each.region)
        and (wanted is None or (wanted == "any" and each.gpus > 0) or (each.gpu.lower() or "none") == wanted)
        and (each.memory_gib or 0.0) >= memory_gib
        and (each.vcpus or 0) >= vcpus
    ]


@cache
def gpu_hour(kind: str) -> tuple[float, str] | None:
    """Return the lowest shipped price of an hour of one GPU, in dollars, with what it is a price of; `None`: unknown.

    Its machine's cores and memory are in it. Blocks of days count only where nothing is sold on demand.
    """
    for purchase in ("on_demand", "block"):
        prices = [
            (price / each.gpus, each)
            for each in shipped()
            if each.gpu == kind and each.currency == "USD" and (price := getattr(each, purchase)) is not None
        ]
        if prices:
            price, offer = min(prices, key=lambda found: (round(found[0], 4), found[1].name))
            return round(price, 4), f"{offer.name} {purchase.replace('_', ' ')}, {offer.date}"
    return None
