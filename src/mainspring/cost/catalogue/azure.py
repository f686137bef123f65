"""Azure's retail prices, pages of JSON: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices

Kept are virtual machines with Linux: consumption, spot and reservations, whose price is of the whole term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.gathering import ODD, ODD_FORM, Gathered, known_shape
from mainspring.cost.catalogue.streamed_json import members

_TERMS = {"1 Year": ("one_year", 8760), "3 Years": ("three_years", 26_280)}


def read_json(file: TextIO, gathered: Gathered, regions: Sequence[str]) -> None:
    """Gather offers from pages that follow one another, or one array of items.

    Raises:
        Invalid: It is no JSON, it has no items, or a price names no currency.
    """
    for _, _, item in members(file, {("Items",), ()}, gathered.name):
        gathered.read += 1
        where = f"item {gathered.read}"
        if not isinstance(item, dict) or "serviceName" not in item:
            gathered.unclear("the item is no price", where)
        elif regions and item.get("armRegionName") not in regions:
            gathered.other()
        else:
            try:
                _add(gathered, item, where)
            except ODD:
                gathered.unclear(ODD_FORM, where)
    if not gathered.read:
        raise Invalid(
            f"{gathered.name} has no Items: it is no page of Azure's retail prices.", fix="name another --format."
        )


def _add(gathered: Gathered, item: dict[str, Any], where: str) -> None:
    product, name = str(item.get("productName", "")), f"{item.get('skuName', '')} {item.get('meterName', '')}"
    if item["serviceName"] != "Virtual Machines" or "Windows" in product or "Low Priority" in name:
        gathered.other()
        return
    hours = 1
    if item.get("type") == "Reservation":
        purchase, hours = _TERMS.get(str(item.get("reservationTerm")), ("", 1))
    elif item.get("type") == "Consumption" and item.get("unitOfMeasure") == "1 Hour":
        purchase = "spot" if "Spot" in name else "on_demand"
    else:
        purchase = ""
    if not purchase:
        gathered.other()
        return
    gathered.currency(item.get("currencyCode"), where)
    price = gathered.number(item.get("retailPrice", item.get("unitPrice")), where)
    if price is None:
        return
    instance = str(item.get("armSkuName") or "")
    gathered.date = max(gathered.date, str(item.get("effectiveStartDate", ""))[:10])
    shape = known_shape("azure", instance)
    gathered.offer(str(item.get("armRegionName") or ""), instance, where, shape, **{purchase: price / hours})
