"""Reasons for which SageMaker could not take a deployment: its limits, and as far as the account may look, the image
and the quota.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.deploy.adapters.aws import Absent, asked, pages
from mainspring.deploy.sagemaker import requests as made
from mainspring.deploy.targets.model import Piece

_QUOTA = "{} for endpoint usage"
_CREATE = {made.GROUP: "CreateModelPackageGroup", made.PACKAGE: "CreateModelPackage", made.MODEL: "CreateModel",
           made.CONFIG: "CreateEndpointConfig", made.ENDPOINT: "CreateEndpoint"}  # fmt: skip


def problems(pieces: Sequence[Piece], connect: Callable[[str], Any], region: str) -> Iterator[str]:
    """Yield the problems.

    Args:
        connect: Returns a client of one of AWS's services.

    Raises:
        Unavailable: AWS does not answer.
    """
    requests = {each.id: json.loads(each.content) for each in pieces}
    yield from _limited(requests, connect)
    images = {each["PrimaryContainer"]["Image"] for id, each in requests.items() if id.startswith(f"{made.MODEL}/")}
    for image in sorted(images):
        yield from _image(image, connect, region)
    yield from _quotas(requests, connect)


def _limited(requests: Mapping[str, Any], connect: Callable[[str], Any]) -> Iterator[str]:
    """Yield values beyond the lengths, counts and forms that AWS's description of its requests has.

    The client itself checks no more than types. Names of instances are left out: AWS has new ones before the client.
    """
    described = connect("sagemaker").meta.service_model
    for id, each in requests.items():
        if (action := _CREATE.get(id.partition("/")[0])) is not None:
            for where, why in _over(described.operation_model(action).input_shape, each):
                yield f"{id} has a value of {where.lstrip('.')} that SageMaker does not take: {why}."


def _over(shape: Any, value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    limits = shape.metadata
    if shape.type_name in ("string", "list", "map") and len(value) > limits.get("max", len(value)):
        unit = "characters" if shape.type_name == "string" else "entries"
        yield where, f"{len(value)} {unit}, and {limits['max']} are the most"
    elif shape.type_name == "string":
        pattern = limits.get("pattern", "")
        if pattern and "\\p{" not in pattern and not re.fullmatch(pattern, value, re.ASCII):
            yield where, f"{value[:80]!r} is not of the form {pattern}"
    elif shape.type_name in ("integer", "float"):
        if not limits.get("min", value) <= value <= limits.get("max", value):
            yield where, f"{value} is not from {limits.get('min')} to {limits.get('max')}"
    elif shape.type_name == "list":
        for each in value:
            yield from _over(shape.member, each, where)
    elif shape.type_name == "map":
        for name, each in value.items():
            yield from _over(shape.key, name, where)
            yield from _over(shape.value, each, f"{where}.{name}")
    elif shape.type_name == "structure":
        for name, each in value.items():
            if name in shape.members:  # else it is for the update alone
                yield from _over(shape.members[name], each, f"{where}.{name}")


def _image(image: str, connect: Callable[[str], Any], region: str) -> Iterator[str]:
    where = made.registry_of(image)
    if where is None:
        return
    account, repository, tag = where
    id = {"imageDigest": tag} if tag.startswith("sha256:") else {"imageTag": tag}
    try:
        asked(connect("ecr").describe_images, registryId=account, repositoryName=repository, imageIds=[id])
    except Denied:
        return
    except (Absent, Invalid) as error:
        yield f"The image {image} is not in {region}: build it and push it ({error})."


def _quotas(requests: dict[str, Any], connect: Callable[[str], Any]) -> Iterator[str]:
    wanted, own = Counter[str](), dict[str, str]()
    for id, each in requests.items():
        if id.startswith(f"{made.CONFIG}/"):
            for variant in each["ProductionVariants"]:
                wanted[variant["InstanceType"]] += variant["InitialInstanceCount"]
        elif id.startswith(f"{made.SCALING}/"):
            wanted[_instance(requests, each["ResourceId"])] += each["MaxCapacity"] - each["MinCapacity"]
        elif id.startswith(f"{made.ENDPOINT}/"):
            own[each["EndpointName"]] = each["EndpointConfigName"]
    try:
        limits = _limits(connect("service-quotas"), set(wanted))
        used = _used(connect("sagemaker"), own) if limits else Counter[str]()
    except (Denied, Invalid, Absent, Unavailable):  # SageMaker itself refuses what is too much
        return
    for instance, limit in sorted(limits.items()):
        if used[instance] + wanted[instance] > limit:
            yield (
                f"The quota of {instance} for endpoints is {limit:g}, {used[instance]} are in use, and up to "
                f"{wanted[instance]} are needed: ask AWS for more (Service Quotas, {_QUOTA.format(instance)!r})."
            )


def _instance(requests: dict[str, Any], resource: str) -> str:
    _, endpoint, _, variant = resource.split("/")
    config = requests[f"{made.ENDPOINT}/{endpoint}"]["EndpointConfigName"]
    variants = requests[f"{made.CONFIG}/{config}"]["ProductionVariants"]
    return next(str(each["InstanceType"]) for each in variants if each["VariantName"] == variant)


def _limits(client: Any, instances: set[str]) -> dict[str, float]:
    """Return the account's quotas, by type of instance; where it has none of its own, the one that AWS gives to all."""
    names = {_QUOTA.format(each): each for each in instances}
    found = dict[str, float]()
    for kind in ("list_service_quotas", "list_aws_default_service_quotas"):
        if found.keys() >= instances:
            break
        listed = pages(client, kind, ServiceCode="sagemaker")
        given = {names[each["QuotaName"]]: each["Value"] for page in listed for each in page["Quotas"]
                 if each["QuotaName"] in names}  # fmt: skip
        found = given | found
    return found


def _used(client: Any, own: Mapping[str, str]) -> Counter[str]:
    """Return the instances by type, without those that are counted as wanted.

    Args:
        own: Endpoint -> its configuration. With another one its instances run until the new ones do.
    """
    used = Counter[str]()
    for page in pages(client, "list_endpoints"):
        for each in page["Endpoints"]:
            found = asked(client.describe_endpoint, EndpointName=each["EndpointName"])
            if own.get(each["EndpointName"]) == found["EndpointConfigName"]:
                continue
            config = asked(client.describe_endpoint_config, EndpointConfigName=found["EndpointConfigName"])
            types = {one["VariantName"]: one.get("InstanceType", "") for one in config["ProductionVariants"]}
            for variant in found.get("ProductionVariants", []):
                counts = (variant.get("CurrentInstanceCount", 0), variant.get("DesiredInstanceCount", 0))
                used[types.get(variant["VariantName"], "")] += max(counts)
    return used
