"""Price files in the formats of Amazon, Azure and Google, as their documentation shows them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

AWS_HEADER = [
    "SKU", "OfferTermCode", "RateCode", "TermType", "PriceDescription", "EffectiveDate", "StartingRange", "EndingRange",
    "Unit", "PricePerUnit", "Currency", "RelatedTo", "LeaseContractLength", "PurchaseOption", "OfferingClass",
    "Product Family", "serviceCode", "Location", "Location Type", "Instance Type", "Current Generation",
    "Instance Family", "vCPU", "Physical Processor", "Clock Speed", "Memory", "Storage", "Network Performance",
    "Processor Architecture", "Tenancy", "Operating System", "License Model", "CapacityStatus", "GPU", "GPU Memory",
    "operation", "Pre Installed S/W", "Region Code",
]  # fmt: skip
_MACHINE = {
    "Product Family": "Compute Instance", "vCPU": "2", "Memory": "8 GiB", "Network Performance": "Up to 12500 Megabit",
    "Physical Processor": "Intel Xeon Platinum 8488C", "Tenancy": "Shared", "Operating System": "Linux",
    "CapacityStatus": "Used", "operation": "RunInstances", "Pre Installed S/W": "NA",
    "License Model": "No License required", "Unit": "Hrs", "Currency": "USD", "TermType": "OnDemand",
    "Region Code": "eu-west-1", "Instance Type": "m7i.large",
}  # fmt: skip
_ATTRIBUTES = {
    "regionCode": "Region Code", "instanceType": "Instance Type", "vcpu": "vCPU", "memory": "Memory",
    "tenancy": "Tenancy", "operatingSystem": "Operating System", "preInstalledSw": "Pre Installed S/W",
    "capacitystatus": "CapacityStatus", "gpu": "GPU", "networkPerformance": "Network Performance",
    "physicalProcessor": "Physical Processor", "operation": "operation", "vCpu": "vCpu", "component": "Component",
    "instanceName": "Instance Name",
}  # fmt: skip


def aws_rows() -> list[dict[str, str]]:
    """Return the rows of which both of Amazon's files are made: what is kept, and neighbours that are not."""
    gpu = {"Instance Type": "g5.xlarge", "vCPU": "4", "Memory": "16 GiB", "GPU": "1", "GPU Memory": "24 GB"}
    years = {"TermType": "Reserved", "PurchaseOption": "No Upfront", "OfferingClass": "standard"}
    return [
        {**_MACHINE, "PricePerUnit": "0.1123500000"},
        {**_MACHINE, **years, "LeaseContractLength": "1yr", "PricePerUnit": "0.0743"},
        {**_MACHINE, **years, "LeaseContractLength": "3yr", "PricePerUnit": "0.0509"},
        {**_MACHINE, **years, "LeaseContractLength": "3yr", "PurchaseOption": "All Upfront", "PricePerUnit": "1200"},
        {**_MACHINE, **years, "LeaseContractLength": "1yr", "OfferingClass": "convertible", "PricePerUnit": "0.09"},
        {**_MACHINE, **gpu, "PricePerUnit": "1.123"},
        {**_MACHINE, "Instance Type": "x8g.48xlarge", "Memory": "3,072 GiB", "vCPU": "192", "PricePerUnit": "21.1",
         "Physical Processor": "AWS Graviton4 Processor"},
        {**_MACHINE, "Operating System": "Windows", "PricePerUnit": "0.2"},
        {**_MACHINE, "Tenancy": "Dedicated", "PricePerUnit": "0.12"},
        {**_MACHINE, "Pre Installed S/W": "SQL Std", "PricePerUnit": "0.6"},
        {**_MACHINE, "CapacityStatus": "UnusedCapacityReservation", "PricePerUnit": "0.11"},
        {**_MACHINE, "Region Code": "us-east-1", "PricePerUnit": "0.1008"},
        {"Product Family": "Storage", "Unit": "GB-Mo", "PricePerUnit": "0.088", "Currency": "USD",
         "TermType": "OnDemand"},
    ]  # fmt: skip


def sagemaker_rows() -> list[dict[str, str]]:
    """Return the rows of SageMaker's files: instances of endpoints, and what else they list of the same instances."""
    machine = {
        "Product Family": "ML Instance", "vCpu": "2", "Memory": "8 GiB", "GPU": "N/A", "Region Code": "eu-west-1",
        "Instance Name": "ml.m7i.large", "Instance Type": "ml.m7i.large-Hosting", "Component": "Hosting",
        "operation": "RunInstance", "Unit": "Hrs", "Currency": "USD", "TermType": "OnDemand",
    }  # fmt: skip
    return [
        {**machine, "PricePerUnit": "0.1340000000"},
        {**machine, "Component": "Training", "Instance Type": "ml.m7i.large-Training", "PricePerUnit": "0.14"},
        {**machine, "Component": "Studio-Notebook", "Instance Type": "ml.m7i.large-Notebook", "PricePerUnit": "0.1"},
        {**machine, "Instance Name": "ml.g5.2xlarge", "vCpu": "8", "Memory": "32 GiB", "GPU": "1",
         "PricePerUnit": "1.69"},
        {**machine, "Instance Name": "ml.p9.48xlarge", "vCpu": "192", "Memory": "2,048 GiB", "GPU": "8",
         "PricePerUnit": "120"},
        {**machine, "Component": "", "Unit": "Quantity", "Instance Name": "ml.g5.2xlarge", "PricePerUnit": "0.9"},
        {"Product Family": "ML Storage", "Unit": "GB-Mo", "PricePerUnit": "0.154", "Currency": "USD",
         "TermType": "OnDemand", "Component": "Hosting", "Region Code": "eu-west-1"},
    ]  # fmt: skip


SAGEMAKER_HEADER = [
    *AWS_HEADER[:17], "Location", "Location Type", "Instance Type", "vCpu", "Memory", "GPU", "GPU Memory", "operation",
    "Component", "Compute Type", "Instance Name", "Physical Cpu", "Region Code",
]  # fmt: skip


def aws_csv(rows: list[dict[str, str]], header: list[str] = AWS_HEADER) -> str:
    out = io.StringIO()
    write = csv.writer(out, quoting=csv.QUOTE_ALL)
    for line in (
        ("FormatVersion", "v1.0"),
        ("Disclaimer", "This pricing list is for informational purposes only."),
        ("Publication Date", "2026-11-20T10:00:00Z"),
        ("OfferCode", "AmazonEC2"),
    ):
        write.writerow(line)
    write.writerow(header)
    write.writerows([[row.get(column, "") for column in header] for row in rows])
    return out.getvalue()


def aws_json(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the document: products, and terms by SKU. Rows of one machine share a SKU."""
    products: dict[str, Any] = {}
    terms: dict[str, dict[str, Any]] = {"OnDemand": {}, "Reserved": {}}
    skus: dict[str, str] = {}
    for number, row in enumerate(rows):
        attributes = {name: row[column] for name, column in _ATTRIBUTES.items() if column in row}
        sku = skus.setdefault(json.dumps(attributes, sort_keys=True), f"SKU{number:05}")
        products[sku] = {"sku": sku, "productFamily": row["Product Family"], "attributes": attributes}
        lease = {name: row[name] for name in ("LeaseContractLength", "PurchaseOption", "OfferingClass") if name in row}
        code = f"{sku}.T{number}"
        terms[row["TermType"]].setdefault(sku, {})[code] = {
            "sku": sku,
            "effectiveDate": "2026-11-20T00:00:00Z",
            "priceDimensions": {
                f"{code}.6YS6": {"unit": row["Unit"], "pricePerUnit": {row["Currency"]: row["PricePerUnit"]}}
            },
            "termAttributes": lease,
        }
    return {
        "formatVersion": "v1.0", "offerCode": "AmazonEC2", "publicationDate": "2026-11-20T10:00:00Z",
        "products": products, "terms": terms, "attributesList": {"a": {"b": ["}", "]", '"']}},
    }  # fmt: skip


def azure_item(**other: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": 0.115, "unitPrice": 0.115,
        "armRegionName": "westeurope", "location": "EU West", "effectiveStartDate": "2026-10-01T00:00:00Z",
        "meterName": "D2s v5", "productName": "Virtual Machines Dsv5 Series", "skuName": "D2s v5",
        "serviceName": "Virtual Machines", "serviceFamily": "Compute", "unitOfMeasure": "1 Hour", "type": "Consumption",
        "armSkuName": "Standard_D2s_v5", **other,
    }  # fmt: skip


def azure_pages() -> str:
    """Return two pages, one after the other."""
    first = [
        azure_item(),
        azure_item(productName="Virtual Machines Dsv5 Series Windows", retailPrice=0.207),
        azure_item(meterName="D2s v5 Spot", skuName="D2s v5 Spot", retailPrice=0.0243),
        azure_item(meterName="D2s v5 Low Priority", skuName="D2s v5 Low Priority", retailPrice=0.023),
    ]
    second = [
        azure_item(type="Reservation", reservationTerm="1 Year", retailPrice=594.0),
        azure_item(type="Reservation", reservationTerm="3 Years", retailPrice=1150.0),
        azure_item(type="DevTestConsumption"),
        azure_item(serviceName="Storage", unitOfMeasure="1 GB/Month"),
        azure_item(armSkuName="Standard_X9_v9", retailPrice=9.0),
    ]
    pages = [
        {
            "BillingCurrency": "USD",
            "CustomerEntityType": "Retail",
            "Items": items,
            "NextPageLink": None,
            "Count": len(items),
        }
        for items in (first, second)
    ]
    return "".join(json.dumps(page) for page in pages)


def google_sku(described: str, nanos: int, use: str = "OnDemand", unit: str = "h", **other: Any) -> dict[str, Any]:
    money = {"currencyCode": "USD", "units": "0", "nanos": nanos, **other}
    return {
        "name": "services/6F81-5844-456A/skus/0000", "skuId": described[:9], "description": described,
        "category": {"serviceDisplayName": "Compute Engine", "resourceFamily": "Compute", "usageType": use},
        "serviceRegions": ["us-central1", "us-east1"],
        "pricingInfo": [{
            "effectiveTime": "2026-11-01T00:00:00Z",
            "pricingExpression": {"usageUnit": unit, "tieredRates": [{"startUsageAmount": 0, "unitPrice": money}]},
        }],
    }  # fmt: skip


def google_page() -> Mapping[str, Any]:
    return {
        "skus": [
            google_sku("N2 Instance Core running in Americas", 31_611_000),
            google_sku("N2 Instance Ram running in Americas", 4_237_000, unit="GiBy.h"),
            google_sku("Spot Preemptible N2 Instance Core running in Americas", 7_000_000, "Preemptible"),
            google_sku("Spot Preemptible N2 Instance Ram running in Americas", 900_000, "Preemptible", "GiBy.h"),
            google_sku("Commitment v1: N2 Cpu in Americas for 1 Year", 19_915_000, "Commit1Yr"),
            google_sku("Commitment v1: N2 Ram in Americas for 1 Year", 2_669_000, "Commit1Yr", "GiBy.h"),
            google_sku("N2 Custom Instance Core running in Americas", 33_191_000),
            google_sku("G2 Instance Core running in Americas", 24_988_000),
            google_sku("G2 Instance Ram running in Americas", 2_927_000, unit="GiBy.h"),
            google_sku("Nvidia L4 GPU running in Americas", 560_040_000),
            google_sku("A2 Instance Core running in Americas", 31_611_000),
            google_sku("A2 Instance Ram running in Americas", 4_237_000, unit="GiBy.h"),
        ],
        "nextPageToken": "",
    }
