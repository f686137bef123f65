"""Requests to SageMaker that make an endpoint of a deployment, and their names. Nothing is sent.

An endpoint configuration and a model cannot be changed, and must not be removed while an endpoint uses them. So their
names have a digest of what they are: another content is another piece, and the former is removed after the endpoint was
moved to the new one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.environment import SAGEMAKER
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.sagemaker.alarms import WINDOW, alarm_requests
from mainspring.deploy.sagemaker.options import SagemakerOptions
from mainspring.deploy.targets.model import Deployment, Needs, Piece, Service

GROUP, PACKAGE, MODEL = "ModelPackageGroup", "ModelPackage", "Model"
CONFIG, ENDPOINT, SCALING = "EndpointConfig", "Endpoint", "Scaling"
RETAINED = "RetainAllVariantProperties"  # of an update: instances stay as many as scaling made them
PORT = 8080  # that SageMaker asks
_LONGEST = 63  # of a name
_SUFFIX = 8  # hexadecimal digits of a digest in a name
_ECR = re.compile(r"(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(.+)")
_TEXT = re.compile(r"[^\w .:/=+@-]")  # not in a value of a model package's metadata
_MOST_METADATA, _LONGEST_VALUE = 50, 256
_LONGEST_ANSWER_MS = 60_000  # https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
_MEDIA = ("application/json", "text/csv", "application/jsonlines")
_SCALE_IN_S, _SCALE_OUT_S = 300, 60

Request = dict[str, Any]


def pieces(
    deployment: Deployment,
    options: SagemakerOptions,
    region: str,
    *,
    follows: bool,
    alarms: Callable[[], Sequence[BurnAlarm]] = tuple,
) -> list[Piece]:
    """Return the pieces of a deployment.

    For each endpoint its models, their configuration, the endpoint, its scaling, and its alarms.

    Args:
        follows: Whether the image follows a catalog on a server, instead of a sealed one.
        alarms: Returns those of the project's objectives.

    Raises:
        Invalid: SageMaker cannot have it.
    """
    _check(deployment, options, region, follows=follows)
    made = [
        piece
        for service in deployment.services
        for piece in _service(deployment, service, options, region, follows=follows)
    ]
    made.sort(key=lambda each: each.kind == SCALING)  # last: it waits for its endpoint
    return [*made, *(_alarms(deployment, made, alarms(), options.notify, follows=follows) if options.notify else ())]


def _alarms(
    deployment: Deployment, made: Sequence[Piece], alarms: Sequence[BurnAlarm], notify: str, *, follows: bool
) -> Iterator[Piece]:
    for service in deployment.services:
        endpoint = _endpoint_name(deployment, service)
        own = [each for each in alarms if each.endpoint == service.endpoint]
        before = [each for each in made if each.id == f"{ENDPOINT}/{endpoint}"]
        variants = [variant for variant, _, _ in _arms(service, follows=follows)]
        for kind, name, request in alarm_requests(endpoint, variants, own, notify):
            piece = _piece(kind, name, request, before)
            before = [*before, piece] if kind == WINDOW else before
            yield piece


def _check(deployment: Deployment, options: SagemakerOptions, region: str, *, follows: bool) -> None:
    name = deployment.target
    if not region:
        raise Invalid(f"Target {name!r} has no region.", fix='write region = "eu-west-1".')
    if not deployment.image:
        raise Invalid(f"Target {name!r} has no image.", fix="push one of kind `image` to ECR, and name it.")
    where = _ECR.fullmatch(deployment.image)
    if where is None and not options.subnets:
        raise Invalid(
            f"SageMaker pulls no image {deployment.image!r}.",
            fix=f"push it to ECR: ACCOUNT.dkr.ecr.{region}.amazonaws.com/NAME; a registry of your own needs `subnets`.",
        )
    if where is not None and where[2] != region:
        raise Invalid(f"The image is in {where[2]}, and target {name!r} in {region}.", fix=f"push it to {region}.")
    if deployment.secrets:
        raise Invalid(
            f"SageMaker gives a container no secrets, and target {name!r} names {', '.join(deployment.secrets)}.",
            fix="use an image of a profile whose catalog is a file: it is sealed in the image and needs none.",
        )
    if follows and options.isolated:
        raise Invalid(
            f"Target {name!r} has no network, and profile {deployment.profile!r} has its catalog on a server.",
            fix="write isolated = false, subnets and security_groups; or use a profile whose catalog is a file.",
        )
    if deployment.port != PORT:
        raise Invalid(f"SageMaker asks port {PORT}, not {deployment.port}.", fix=f"write port = {PORT}, or nothing.")
    for each in deployment.services:
        if each.deadline_ms > _LONGEST_ANSWER_MS:
            raise Invalid(
                f"The endpoint {each.endpoint!r} has a deadline of {each.deadline_ms / 1000:g} s, and SageMaker waits "
                f"{_LONGEST_ANSWER_MS // 1000} s for an answer.",
                fix="give it a shorter deadline, or score such rows in batches (docs/howto/batch.md).",
            )
    least, most = deployment.replicas
    if not least:
        raise Invalid(f"SageMaker keeps one instance at least, and target {name!r} has the replicas [0, {most}].",
                      fix=f"write replicas = [1, {most}].")  # fmt: skip
    if least != most and not options.requests_per_minute:
        raise Invalid(
            f"Target {name!r} is scaled from {least} to {most} instances, and nothing says when.",
            fix="write requests_per_minute: of the highest load that `mainspring bench` found, some 70%.",
        )


def name_of(*parts: str, longest: int = _LONGEST) -> str:
    """Return a name that SageMaker takes, of letters, digits and single hyphens. Other names give other names."""
    whole = "-".join(parts)
    name = re.sub(r"[^A-Za-z0-9]+", "-", whole).strip("-")
    if name == whole and len(name) <= longest:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_SUFFIX]
    return f"{name[: longest - _SUFFIX - 1].rstrip('-')}-{digest}"


def _endpoint_name(deployment: Deployment, service: Service) -> str:
    return name_of(deployment.project, deployment.target, check_id(service.endpoint, "endpoint"))


def registry_of(image: str) -> tuple[str, str, str] | None:
    """Return account, repository, and tag or digest (`sha256:...`) of an image in ECR; `None` for another one."""
    found = _ECR.fullmatch(image)
    if found is None:
        return None
    path, at, digest = found[3].partition("@")
    repository, _, tag = path.partition(":")
    return found[1], repository, digest if at else tag or "latest"


def _piece(kind: str, name: str, request: Mapping[str, Any], after: list[Piece], needs: Needs | None = None) -> Piece:
    content = json.dumps(request, indent=2, sort_keys=True).encode() + b"\n"
    return Piece(id=f"{kind}/{name}", content=content, after=tuple(each.id for each in after), needs=needs)


def _digested(base: str, request: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:_SUFFIX]
    return f"{base[: _LONGEST - _SUFFIX - 1].rstrip('-')}-{digest}"


def _service(
    deployment: Deployment, service: Service, options: SagemakerOptions, region: str, *, follows: bool
) -> Iterator[Piece]:
    endpoint = _endpoint_name(deployment, service)
    before: list[Piece] = []
    if options.registry and service.version:
        before = [_piece(GROUP, endpoint, {"ModelPackageGroupName": endpoint}, [])]
        before.append(_piece(PACKAGE, endpoint, _package(deployment, service, options, endpoint), before))
    arms = _arms(service, follows=follows)
    variants: list[Request] = []
    for variant, version, weight in arms:
        request = _model(deployment, service.endpoint, version, options)
        model = _digested(endpoint, request)
        if model not in {each["ModelName"] for each in variants}:
            before.append(_piece(MODEL, model, {"ModelName": model, **request}, []))
        variants.append(_variant(variant, model, weight, _shares(deployment.replicas, weight)[0], options))
    config: Request = {"ProductionVariants": variants, **({"KmsKeyId": options.kms} if options.kms else {})}
    named = _digested(endpoint, config)
    before.append(_piece(CONFIG, named, {"EndpointConfigName": named, **config}, before))
    least, most = (sum(_shares(deployment.replicas, weight)[place] for _, _, weight in arms) for place in (0, 1))
    needs = Needs(instance=f"aws/{region}/{options.instance}", count=least, most=most)
    request = {"EndpointName": endpoint, "EndpointConfigName": named, RETAINED: most > least}
    before.append(_piece(ENDPOINT, endpoint, request, before, needs))
    yield from before
    for variant, _, weight in arms:
        low, high = _shares(deployment.replicas, weight)
        if low != high:
            yield _piece(SCALING, f"{endpoint}/{variant}", _scaling(endpoint, variant, low, high, options), before)


def _arms(service: Service, *, follows: bool) -> list[tuple[str, str, float]]:
    """Return the variants: name, version and weight.

    A sealed image has to have just the versions of the deployment. One that follows the catalog follows its rollouts.
    """
    if service.arms and not follows:
        names = ["champion", *(f"candidate-{number}" for number in range(1, len(service.arms)))]
        return [(name, version, weight) for name, (version, weight) in zip(names, service.arms, strict=True)]
    return [("champion", "" if follows else service.version.rpartition(":")[2], 1.0)]


def _shares(replicas: tuple[int, int], weight: float) -> tuple[int, int]:
    """Return the least and the most instances of a variant with a share of the requests."""
    least, most = (max(1, math.ceil(each * weight - 1e-9)) for each in replicas)
    return least, most


def _model(deployment: Deployment, endpoint: str, version: str, options: SagemakerOptions) -> Request:
    container: Request = {
        "Image": deployment.image,
        "Environment": {**deployment.env, SAGEMAKER: f"{endpoint}:{version}" if version else endpoint},
    }
    if registry_of(deployment.image) is None:
        container["ImageConfig"] = {"RepositoryAccessMode": "Vpc"}
    network = {"SecurityGroupIds": options.security_groups, "Subnets": options.subnets}
    return {
        "ExecutionRoleArn": options.role,
        "PrimaryContainer": container,
        "EnableNetworkIsolation": options.isolated,
        **({"VpcConfig": network} if options.subnets else {}),
    }


def _variant(name: str, model: str, weight: float, count: int, options: SagemakerOptions) -> Request:
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": count,
        "InstanceType": options.instance,
        "InitialVariantWeight": weight,
        "ContainerStartupHealthCheckTimeoutInSeconds": options.startup_s,
    }


def _scaling(endpoint: str, variant: str, least: int, most: int, options: SagemakerOptions) -> Request:
    return {
        "ResourceId": f"endpoint/{endpoint}/variant/{variant}",
        "MinCapacity": least,
        "MaxCapacity": most,
        "Policy": {
            "TargetValue": float(options.requests_per_minute),
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "DisableScaleIn": False,
            "ScaleInCooldown": _SCALE_IN_S,
            "ScaleOutCooldown": _SCALE_OUT_S,
        },
    }


def _package(deployment: Deployment, service: Service, options: SagemakerOptions, group: str) -> Request:
    facts = {
        "mainspring.endpoint": service.endpoint,
        "mainspring.version": service.version,
        "mainspring.bundle": service.bundle,
        **{f"lineage.{name}": value for name, value in sorted(service.lineage.items())},
        **{f"metric.{name}": f"{value:.9g}" for name, value in sorted(service.metrics.items())},
    }
    said = {
        _TEXT.sub("-", name)[:128]: _TEXT.sub("-", value)[:_LONGEST_VALUE] for name, value in facts.items() if value
    }
    container = {"Image": deployment.image}
    return {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": f"{service.version} of {deployment.project}, bundle {service.bundle[:12]}",
        "ModelApprovalStatus": "Approved",  # by whoever promoted it
        "CustomerMetadataProperties": dict(list(said.items())[: _MOST_METADATA - 1]),  # one is the digest's
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": list(_MEDIA),
            "SupportedResponseMIMETypes": list(_MEDIA),
            "SupportedRealtimeInferenceInstanceTypes": [options.instance],
            "SupportedTransformInstanceTypes": [options.instance],
        },
    }
