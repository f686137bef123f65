"""Costs as FOCUS 1.2, the FinOps Open Cost and Usage Specification (https://focus.finops.org/focus-specification/v1-2/).

A row is what a subject used of one measure on one machine in a day; what several teams pay for is a row for each. All
mandatory columns are there, and those conditional ones that apply; columns of our own begin with `x_`. Amounts are of
type decimal with nine digits, so that sums are exact. Counts, such as requests, have no cost and no row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.files import write_atomic
from mainspring.core.money import NANOS
from mainspring.core.time import DAY, HOUR, SECOND, format_instant, to_datetime
from mainspring.cost.statement import Part
from mainspring.cost.usage import MACHINE, TABLE
from mainspring.operations.cost.reporting import by_team, cost_parts
from mainspring.project import Project

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "1.2"
_GIB = 1 << 30
_PLACES = Decimal("0.000000001")
# Measure -> the unit of its price, how many of the measure's units that is, the meter.
_PRICED = {
    "cpu": ("Core Hours", HOUR, "Processor time"),
    "memory": ("GiB-Hours", _GIB * (HOUR // SECOND), "Memory"),
    "gpu": ("GPU Hours", HOUR, "GPU time"),
    "in": ("GiB", _GIB, "Data received"),
    "out": ("GiB", _GIB, "Data sent"),
    "storage": ("GiB-Hours", _GIB, "Storage"),
    "charged": ("Currency Units", 1_000_000, "Tokens of upstreams"),
}
_DECIMALS = ("BilledCost", "ConsumedQuantity", "ContractedCost", "EffectiveCost", "ListCost", "PricingQuantity")
_INSTANTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
_TEXTS = (
    "BillingAccountId", "BillingAccountName", "BillingCurrency", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ChargeFrequency", "ConsumedUnit", "InvoiceIssuerName", "PricingCategory", "PricingUnit", "ProviderName",
    "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "SkuId", "SkuMeter", "SkuPriceId", "Tags", "x_Key", "x_Model", "x_Version",
)  # fmt: skip


class FocusExport(msgspec.Struct, frozen=True, kw_only=True):
    """A file of costs.

    Attributes:
        version: Of FOCUS.
        cost: Sum of its rows.
        unpriced: Amounts that are left out, because no price of theirs is known.
    """

    file: str
    version: str
    rows: int
    since: str
    until: str
    currency: str
    cost: float
    unpriced: int


def export(project: Project, path: Path, *, since: int, until: int | None = None) -> FocusExport:
    """Write the costs of whole days, UTC, to a Parquet file.

    Args:
        since, until: In the first and the last day; by default until now.

    Raises:
        Invalid: The profile states no price of the machine, or the file is a folder.
        StorageFull: There is no room.
    """
    import io

    import pyarrow.parquet as pq

    if path.is_dir():
        raise Invalid(f"{path} is a folder.", fix="name a file, such as costs.parquet.")
    first = since - since % DAY
    end = project.wall.now() + 1 if until is None else until
    found, rates = cost_parts(project, first, end)
    if rates is None:
        raise Invalid(
            "Costs need the price of this machine.",
            fix='state it in the profile: [profiles.NAME.prices], machine = "0.40 EUR".',
        )
    priced = [
        (each, team)
        for part in found
        if part.nanos is not None and part.measure in _PRICED
        for team, each in by_team(part)
    ]
    instance = project.settings.prices.instance
    described = _Described(project.settings.project, rates.currency, *_place(instance), rates.source)
    table = _table([described.row(part, team) for part, team in priced])
    content = io.BytesIO()
    pq.write_table(table, content)
    write_atomic(path, content.getvalue())
    return FocusExport(
        file=str(path),
        version=VERSION,
        rows=len(priced),
        since=format_instant(first),
        until=format_instant(end - end % SECOND),
        currency=rates.currency,
        cost=sum(part.nanos or 0 for part, _ in priced) / NANOS,
        unpriced=sum(1 for part in found if part.nanos is None and part.measure in _PRICED),
    )


class _Described(msgspec.Struct, frozen=True):
    """Columns that all rows share."""

    project: str
    currency: str
    provider: str
    region: str
    source: str

    def row(self, part: Part, team: str) -> dict[str, Any]:
        subject = part.subject
        unit, units, meter = _PRICED[part.measure]
        cost = Decimal(part.nanos or 0).scaleb(-9)
        quantity = (Decimal(part.amount) / units).quantize(_PLACES)
        day = to_datetime(part.day)
        month = day.replace(day=1)
        kind = subject.kind if subject.kind != MACHINE else subject.id
        name = part.machine if subject.kind == MACHINE else subject.id
        tags = {"kind": kind, **({"team": team} if team else {})}
        return {
            **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
            "BillingAccountId": self.project,
            "BillingAccountName": self.project,
            "BillingCurrency": self.currency,
            "BillingPeriodStart": month,
            "BillingPeriodEnd": (month + dt.timedelta(days=32)).replace(day=1),
            "ChargeCategory": "Usage",
            "ChargeDescription": f"{meter} of {kind} {name} on {part.machine}; prices: {self.source}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": day,
            "ChargePeriodEnd": day + dt.timedelta(days=1),
            "ConsumedQuantity": quantity,
            "ConsumedUnit": unit,
            "InvoiceIssuerName": self.provider,
            "PricingCategory": "Standard",
            "PricingQuantity": quantity,
            "PricingUnit": unit,
            "ProviderName": self.provider,
            "PublisherName": "Mainspring",
            "RegionId": self.region or None,
            "RegionName": self.region or None,
            "ResourceId": f"{kind}/{name}",
            "ResourceName": name,
            "ResourceType": kind,
            "ServiceCategory": _category(subject.kind),
            "ServiceName": f"Mainspring {kind}",
            "SkuId": part.measure,
            "SkuMeter": meter,
            "SkuPriceId": f"{part.machine}/{part.measure}",
            "Tags": msgspec.json.encode(tags).decode(),
            "x_Key": subject.key or None,
            "x_Model": subject.model or None,
            "x_Version": subject.version or None,
        }


def _category(kind: str) -> str:
    return {MACHINE: "Compute", TABLE: "Storage"}.get(kind, "AI and Machine Learning")


def _place(instance: str) -> tuple[str, str]:
    """Return the provider and the region of `PROVIDER/REGION/INSTANCE`."""
    provider, _, rest = instance.partition("/")
    return provider or "Own machine", rest.partition("/")[0]


def _fields() -> Iterator[tuple[str, pa.DataType]]:
    import pyarrow as pa

    yield from ((name, pa.decimal128(38, 9)) for name in _DECIMALS)
    yield from ((name, pa.timestamp("us", tz="UTC")) for name in _INSTANTS)
    yield from ((name, pa.string()) for name in _TEXTS)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(sorted(_fields()), metadata={"focus_version": VERSION})
    return pa.Table.from_pylist(rows, schema=schema)
