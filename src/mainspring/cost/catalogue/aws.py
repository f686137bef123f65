"""Amazon's price list files of EC2 and SageMaker, CSV and JSON.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html

Kept of EC2 are Linux instances of shared tenancy without further software: on demand, and standard commitments of one
and three years without payment in advance. Kept of SageMaker are the instances of endpoints (`ml.*`, the component
Hosting). The rest (other systems, storage, hosts, notebooks, payment in advance) is counted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.gathering import ODD, ODD_FORM, Gathered, known_shape
from mainspring.cost.catalogue.streamed_json import members

_MOST_LINE = 1 << 20
_PREAMBLE = 10  # lines before the header, at most
# Names of attributes in the JSON file, and of columns in the CSV file: in small letters, without blanks and signs.
_MACHINE = {"regioncode", "vcpu", "memory"}
_KEPT = {"tenancy": "Shared", "operatingsystem": "Linux", "preinstalledsw": "NA", "capacitystatus": "Used"}  # of EC2
_HOSTING = {"component": "Hosting"}  # of SageMaker
_EC2 = {*_MACHINE, *_KEPT, "instancetype", "networkperformance"}
_SAGEMAKER = {*_MACHINE, *_HOSTING, "instancename"}
_ATTRIBUTES = {*_EC2, *_SAGEMAKER, "gpu", "gpumemory", "physicalprocessor", "operation"}
_TERMS = ("TermType", "Unit", "PricePerUnit", "Currency", "LeaseContractLength", "PurchaseOption", "OfferingClass")
_YEARS = {"1yr": "one_year", "1 yr": "one_year", "3yr": "three_years", "3 yr": "three_years"}
_GPUS = {
    "g4dn": "T4", "g5": "A10G", "g6": "L4", "gr6": "L4", "g6e": "L40S", "p3": "V100",
    "p4d": "A100-40", "p4de": "A100-80", "p5": "H100", "p5e": "H200", "p5en": "H200",
}  # fmt: skip
_NUMBER = re.compile(r"[\d,.]+")
_SIGNS = re.compile(r"[^a-z]")


def read_csv(file: TextIO, gathered: Gathered, regions: Sequence[str]) -> None:
    """Gather offers from a CSV file of price terms, a line at a time.

    Raises:
        Invalid: No line of the beginning is its header, or a price names no currency.
    """
    rows = csv.reader(_lines(file, gathered.name))
    header: list[str] = []
    try:
        for _, row in zip(range(_PREAMBLE), rows, strict=False):
            if row[:1] == ["Publication Date"] and len(row) > 1:
                gathered.date = row[1][:10]
            header = max(header, row, key=len)
            if not _lacks(row):
                header = row
                break
        if lacks := _lacks(header):
            raise Invalid(
                f"{gathered.name} is no price list of EC2 or SageMaker: no header has {lacks[:5]}.",
                fix="fetch index.csv of AmazonEC2 or AmazonSageMaker, or name another --format.",
            )
        at = {column: header.index(column) for column in _TERMS}
        columns = {name: place for place, column in enumerate(header) if (name := _plain(column)) in _ATTRIBUTES}
        kept = _HOSTING if columns.keys() >= _SAGEMAKER else _KEPT
        telling = [(columns[name], value) for name, value in kept.items()]
        for row in rows:
            gathered.read += 1
            if len(row) == len(header) and any(row[place] != value for place, value in telling):  # most of gigabytes
                gathered.other()
                continue
            where = f"line {rows.line_num}"
            if len(row) != len(header):
                gathered.unclear("the row has another number of columns than the header", where)
                continue
            attributes = {name: row[place] for name, place in columns.items()}
            term = {name: row[at[name]] for name in _TERMS}
            try:
                _add(gathered, attributes, term, where, regions)
            except ODD:
                gathered.unclear(ODD_FORM, where)
    except csv.Error as error:
        raise Invalid(f"{gathered.name}, line {rows.line_num}: {error}.") from error


def _plain(name: str) -> str:
    return _SIGNS.sub("", name.lower())


def _lacks(header: Sequence[str]) -> list[str]:
    """Return the columns that a header of either price list would need beside its own."""
    names, terms = {_plain(column) for column in header}, set(_TERMS) - set(header)
    return sorted(terms | min(_EC2 - names, _SAGEMAKER - names, key=len))


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
            attributes = _attributes(value.get("attributes"))
            if _machine(attributes, regions):
                products[sku] = attributes
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
            f"{gathered.name} is no price list of EC2 or SageMaker: it has no products before its terms.",
            fix="fetch index.json of AmazonEC2 or AmazonSageMaker, or name another --format.",
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


def _attributes(given: Any) -> dict[str, Any]:
    found = given.items() if isinstance(given, dict) else ()
    return {plain: value for name, value in found if (plain := _plain(str(name))) in _ATTRIBUTES}


def _machine(attributes: Mapping[str, Any], regions: Sequence[str]) -> bool:
    kept = _HOSTING if "component" in attributes else _KEPT
    return (
        all(attributes.get(name) == value for name, value in kept.items())
        and attributes.get("operation", "") in ("RunInstances", "RunInstance", "")
        and bool(_name(attributes))
        and (not regions or attributes.get("regioncode") in regions)
    )


def _name(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("instancename" if "component" in attributes else "instancetype") or "")


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
    instance = _name(attributes)
    gathered.offer(str(attributes["regioncode"]), instance, where, _shape(instance, attributes), **{purchase: price})


def _shape(instance: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    plain = instance.removeprefix("ml.")  # SageMaker's name of EC2's machine
    known = known_shape("aws", instance) or known_shape("aws", plain)
    vcpus, memory = _first(attributes.get("vcpu")), _first(attributes.get("memory"))
    gpus = int(_first(attributes.get("gpu")) or 0)
    family = plain.partition(".")[0]
    threads = 1 if "Graviton" in str(attributes.get("physicalprocessor")) or family.startswith("t2") else 2
    return {
        **known,
        "vcpus": int(vcpus) if vcpus else None,
        "cores": known.get("cores") or (max(1, int(vcpus) // threads) if vcpus else None),
        "memory_gib": memory,
        "gpus": gpus,
        "gpu": (known.get("gpu") or _GPUS.get(family, family)) if gpus else "",
        "interconnect": known.get("interconnect") or str(attributes.get("networkperformance") or ""),
    }


def _first(given: object) -> float | None:
    found = _NUMBER.search(str(given or ""))
    try:
        return float(found[0].replace(",", "")) if found else None
    except ValueError:
        return None
