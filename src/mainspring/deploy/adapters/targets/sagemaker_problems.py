"""Reasons for which SageMaker could not take a deployment, as far as the account may look: the image, the quota."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.errors import Denied, Invalid
from mainspring.deploy.adapters.aws import Absent, asked, pages
from mainspring.deploy.sagemaker import requests as made
from mainspring.deploy.targets.model import Piece

_QUOTA = "{} for endpoint usage"


def problems(pieces: Sequence[Piece], connect: Callable[[str], Any], region: str) -> Iterator[str]:
    """Yield the problems.

    Args:
        connect: Returns a client of one of AWS's services.

    Raises:
        Unavailable: AWS does not answer.
    """
    requests = {each.id: json.loads(each.content) for each in pieces}
    images = {each["PrimaryContainer"]["Image"] for id, each in requests.items() if id.startswith(f"{made.MODEL}/")}
    for image in sorted(images):
        yield from _image(image, connect, region)
    yield from _quotas(requests, connect)


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
    except (Denied, Invalid, Absent):
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
    names = {_QUOTA.format(each): each for each in instances}
    listed = pages(client, "list_service_quotas", ServiceCode="sagemaker")
    return {names[each["QuotaName"]]: each["Value"] for page in listed for each in page["Quotas"]
            if each["QuotaName"] in names}  # fmt: skip


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
