"""Google's SKUs of Compute Engine, pages of JSON: https://cloud.google.com/billing/docs/reference/rest/v1/services.skus/list

Google prices cores, memory and GPUs: an instance that the shipped catalogue describes costs their sum. A price of an
instance with a part that the file lacks stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TextIO

from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.gathering import ODD, ODD_FORM, SHAPE, Gathered
from mainspring.cost.catalogue.offers import shipped
from mainspring.cost.catalogue.streamed_json import members

_USES = {"OnDemand": "on_demand", "Preemptible": "spot", "Commit1Yr": "one_year", "Commit3Yr": "three_years"}
_PART = re.compile(
    r"(?:Spot Preemptible |Preemptible |Commitment v1: )?(?P<family>[A-Z]\d+[A-Z]?)(?: AMD| Predefined| Arm)? "
    r"(?:Instance )?(?P<part>Core|Cpu|Ram)\b"
)
_GPU = re.compile(
    r"(?:Spot Preemptible |Preemptible |Commitment v1: )?Nvidia (?:Tesla )?(?P<gpu>[A-Z]\d+(?: \d+GB)?)(?: GPU)?\b"
)
_GPUS = {"A100": "A100-40", "A100 80GB": "A100-80", "H100 80GB": "H100", "H200 141GB": "H200"}
_NANOS = 1_000_000_000


def read_json(file: TextIO, gathered: Gathered, regions: Sequence[str]) -> None:
    """Gather the prices of parts, then the instances made of them.

    Raises:
        Invalid: It is no JSON, it has no SKUs, or a price names no currency.
    """
    parts: dict[tuple[str, str, str], float] = {}  # (region, purchase, part) -> of an hour
    for _, _, sku in members(file, {("skus",), ()}, gathered.name):
        gathered.read += 1
        where = f"SKU {sku.get('skuId', gathered.read)}" if isinstance(sku, dict) else f"entry {gathered.read}"
        if not isinstance(sku, dict) or not isinstance(sku.get("category"), dict):
            gathered.unclear("the entry is no SKU", where)
            continue
        try:
            _part(gathered, sku, where, parts)
        except ODD:
            gathered.unclear(ODD_FORM, where)
    if not gathered.read:
        raise Invalid(
            f"{gathered.name} has no skus: it is no page of Google's catalogue.", fix="name another --format."
        )
    for region in sorted({region for region, _, _ in parts}):
        if not regions or region in regions:
            _instances(gathered, region, parts)


def _part(gathered: Gathered, sku: dict[str, Any], where: str, parts: dict[tuple[str, str, str], float]) -> None:
    category, described = sku["category"], str(sku.get("description", ""))
    purchase = _USES.get(str(category.get("usageType")))
    if purchase is None or category.get("resourceFamily") != "Compute" or "Custom" in described or "Sole" in described:
        gathered.other()
        return
    if found := _PART.match(described):
        part = f"{found['family'].lower()} {'ram' if found['part'] == 'Ram' else 'core'}"
    elif found := _GPU.match(described):
        part = _GPUS.get(found["gpu"], found["gpu"])
    else:
        gathered.other()
        return
    price = _price(gathered, sku, where)
    if price is None:
        return
    for region in sku.get("serviceRegions") or ():
        if parts.setdefault((str(region), purchase, part), price) != price:
            gathered.unclear("the same part has two prices", where)


def _price(gathered: Gathered, sku: dict[str, Any], where: str) -> float | None:
    try:
        info = sku["pricingInfo"][-1]
        expression = info["pricingExpression"]
        unit = expression["tieredRates"][0]["unitPrice"]
        usage = expression["usageUnit"]
    except (KeyError, IndexError, TypeError):
        gathered.unclear("the SKU has no price", where)
        return None
    if usage not in ("h", "GiBy.h", "GBy.h"):
        gathered.unclear(f"the unit {str(usage)[:20]!r} is not an hour", where)
        return None
    gathered.currency(unit.get("currencyCode"), where)
    gathered.date = max(gathered.date, str(info.get("effectiveTime", ""))[:10])
    units, nanos = gathered.number(unit.get("units", 0), where), unit.get("nanos", 0)
    if units is None or not isinstance(nanos, int) or not 0 <= nanos < _NANOS:
        if units is not None:
            gathered.unclear("the price is negative, not finite or over a million", where)
        return None
    return units + nanos / _NANOS


def _instances(gathered: Gathered, region: str, parts: dict[tuple[str, str, str], float]) -> None:
    for each in {offer.instance: offer for offer in shipped() if offer.provider == "google"}.values():
        family = each.instance.partition("-")[0]
        prices = {}
        for purchase in _USES.values():
            core, ram, gpu = (
                parts.get((region, purchase, part)) for part in (f"{family} core", f"{family} ram", each.gpu)
            )
            if core is None or ram is None or (each.gpus and gpu is None):
                continue
            prices[purchase] = core * (each.vcpus or 0) + ram * (each.memory_gib or 0) + (gpu or 0.0) * each.gpus
        if prices:
            gathered.offer(region, each.instance, region, {name: getattr(each, name) for name in SHAPE}, **prices)
