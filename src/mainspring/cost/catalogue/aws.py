"""Amazon's price list files of EC2, CSV and JSON.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html

Kept are Linux instances of shared tenancy without further software: on demand, and standard commitments of one and
three years without payment in advance. The rest (other systems, storage, hosts, payment in advance) is counted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TextIO

from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.gathering import ODD, ODD_FORM, Gathered, known_shape
from mainspring.cost.catalogue.streamed_json import members

_MOST_LINE = 1 << 20
_PREAMBLE = 10  # lines before the header, at most
# Attribute of the JSON file -> column of the CSV file.
_COLUMNS = {
    "regionCode": "Region Code", "instanceType": "Instance Type", "vcpu": "vCPU", "memory": "Memory",
    "tenancy": "Tenancy", "operatingSystem": "Operating System", "preInstalledSw": "Pre Installed S/W",
    "capacitystatus": "CapacityStatus", "gpu": "GPU", "gpuMemory": "GPU Memory",
    "networkPerformance": "Network Performance",
    "physicalProcessor": "Physical Processor", "operation": "operation",
}  # fmt: skip
_TERMS = ("TermType", "Unit", "PricePerUnit", "Currency", "LeaseContractLength", "PurchaseOption", "OfferingClass")
_OPTIONAL = {"gpu", "gpuMemory", "physicalProcessor", "operation"}
_KEPT = {"tenancy": "Shared", "operatingSystem": "Linux", "preInstalledSw": "NA", "capacitystatus": "Used"}
_YEARS = {"1yr": "one_year", "1 yr": "one_year", "3yr": "three_years", "3 yr": "three_years"}
_GPUS = {
    "g4dn": "T4", "g5": "A10G", "g6": "L4", "gr6": "L4", "g6e": "L40S", "p3": "V100",
    "p4d": "A100-40", "p4de": "A100-80", "p5": "H100", "p5e": "H200", "p5en": "H200",
}  # fmt: skip
_NUMBER = re.compile(r"[\d,.]+")


def read_csv(file: TextIO, gathered: Gathered, regions: Sequence[str]) -> None:
    """Gather offers from a CSV file of price terms, a line at a time.

    Raises:
        Invalid: No line of the beginning is its header, or a price names no currency.
    """
    rows = csv.reader(_lines(file, gathered.name))
    header: list[str] = []
    needed = {column for name, column in _COLUMNS.items() if name not in _OPTIONAL} | set(_TERMS)
    try:
        for _, row in zip(range(_PREAMBLE), rows, strict=False):
            if row[:1] == ["Publication Date"] and len(row) > 1:
                gathered.date = row[1][:10]
            if needed <= set(row):
                header = row
                break
            header = max(header, row, key=len)
        if not needed <= set(header):
            raise Invalid(
                f"{gathered.name} is no price list of EC2: no header has {sorted(needed - set(header))[:5]}.",
                fix="fetch index.csv of AmazonEC2, or name another --format.",
            )
        at = {column: header.index(column) for column in {*_COLUMNS.values(), *_TERMS} & set(header)}
        telling, kept = itemgetter(*(at[_COLUMNS[name]] for name in _KEPT)), tuple(_KEPT.values())
        for row in rows:
            gathered.read += 1
            if len(row) == len(header) and telling(row) != kept:  # most rows of gigabytes
                gathered.other()
                continue
            where = f"line {rows.line_num}"
            if len(row) != len(header):
                gathered.unclear("the row has another number of columns than the header", where)
                continue
            attributes = {name: row[at[column]] for name, column in _COLUMNS.items() if column in at}
            term = {name: row[at[name]] for name in _TERMS}
            try:
                _add(gathered, attributes, term, where, regions)
            except ODD:
                gathered.unclear(ODD_FORM, where)
    except csv.Error as error:
        raise Invalid(f"{gathered.name}, line {rows.line_num}: {error}.") from error


def _lines(file: TextIO, name: str) -> Iterator[str]:
    while line := file.readline(_MOST_LINE):
        if len(line) >= _MOST_LINE:
            raise Invalid(f"{name} has a line of over {_MOST_LINE:,} characters: it is no price list.")
        yield line


def read_json(file: TextIO, gathered: Gathered, regions: Sequence[str]) -> None:
    """Gather offers from a JSON file: products, then their terms.

    Raises:
        Invalid: It is no JSON, terms come before products, or a price names no currency.
    """
    products: dict[str, dict[str, Any]] = {}
    seen = early = False
    paths = {("products",), ("terms", "OnDemand"), ("terms", "Reserved")}
    for path, sku, value in members(file, paths, gathered.name):
        gathered.read += 1
        if not isinstance(value, dict):
            gathered.unclear("the entry is no object", sku)
        elif path == ("products",):
            seen = True
            attributes = value.get("attributes")
            if isinstance(attributes, dict) and _machine(attributes, regions):
                products[sku] = {name: attributes.get(name, "") for name in _COLUMNS}
            else:
                gathered.other()
        elif sku in products:
            for term in value.values():
                try:
                    _terms(gathered, products[sku], path[1], term, sku, regions)
                except ODD:
                    gathered.unclear(ODD_FORM, sku)
        else:
            early = early or not seen
            gathered.other()
    if early or not seen:
        raise Invalid(
            f"{gathered.name} is no price list of EC2: it has no products before its terms.",
            fix="fetch index.json of AmazonEC2, or name another --format.",
        )


def _terms(
    gathered: Gathered, attributes: Mapping[str, Any], kind: str, term: Any, sku: str, regions: Sequence[str]
) -> None:
    if not isinstance(term, dict) or not isinstance(term.get("priceDimensions"), dict):
        gathered.unclear("the term has no prices", sku)
        return
    gathered.date = max(gathered.date, str(term.get("effectiveDate", ""))[:10])
    for dimension in term["priceDimensions"].values():
        prices = dimension.get("pricePerUnit") if isinstance(dimension, dict) else None
        if not isinstance(prices, dict):
            gathered.unclear("the term has no prices", sku)
            continue
        for currency, price in prices.items() or (("", ""),):
            given = {**dict.fromkeys(_TERMS, ""), **(term.get("termAttributes") or {}), "TermType": kind}
            given |= {"Unit": dimension.get("unit", ""), "PricePerUnit": price, "Currency": currency}
            _add(gathered, attributes, given, f"SKU {sku}", regions)


def _machine(attributes: Mapping[str, Any], regions: Sequence[str]) -> bool:
    return (
        all(attributes.get(name) == value for name, value in _KEPT.items())
        and attributes.get("operation", "RunInstances") in ("RunInstances", "")
        and bool(attributes.get("instanceType"))
        and (not regions or attributes.get("regionCode") in regions)
    )


def _add(
    gathered: Gathered, attributes: Mapping[str, Any], term: Mapping[str, Any], where: str, regions: Sequence[str]
) -> None:
    if not _machine(attributes, regions) or str(term["Unit"]) not in ("Hrs", "Hours", "hours"):
        gathered.other()
        return
    if term["TermType"] == "OnDemand":
        purchase = "on_demand"
    elif (term["PurchaseOption"], term["OfferingClass"]) == ("No Upfront", "standard"):
        purchase = _YEARS.get(str(term["LeaseContractLength"]), "")
    else:
        purchase = ""
    if not purchase:
        gathered.other()
        return
    gathered.currency(term["Currency"], where)
    price = gathered.number(term["PricePerUnit"], where)
    if price is None:
        return
    if not price:
        gathered.other()  # paid for otherwise: in advance, or by a reservation
        return
    instance = str(attributes["instanceType"])
    gathered.offer(str(attributes["regionCode"]), instance, where, _shape(instance, attributes), **{purchase: price})


def _shape(instance: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    known = known_shape("aws", instance)
    vcpus, memory = _first(attributes.get("vcpu")), _first(attributes.get("memory"))
    gpus = int(_first(attributes.get("gpu")) or 0)
    family = instance.partition(".")[0]
    threads = 1 if "Graviton" in str(attributes.get("physicalProcessor")) or family.startswith("t2") else 2
    return {
        **known,
        "vcpus": int(vcpus) if vcpus else None,
        "cores": known.get("cores") or (max(1, int(vcpus) // threads) if vcpus else None),
        "memory_gib": memory,
        "gpus": gpus,
        "gpu": (known.get("gpu") or _GPUS.get(family, family)) if gpus else "",
        "interconnect": known.get("interconnect") or str(attributes.get("networkPerformance") or ""),
    }


def _first(given: object) -> float | None:
    found = _NUMBER.search(str(given or ""))
    try:
        return float(found[0].replace(",", "")) if found else None
    except ValueError:
        return None
