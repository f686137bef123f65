"""Resources of SageMaker by kind: each is found, made and removed. Tags have the digest of what it was made with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.deploy.adapters.aws import Absent, Answer, asked, pages
from mainspring.deploy.sagemaker import requests as made
from mainspring.deploy.targets.model import ABSENT, Piece, Seen, State

DIGEST, CONFIG = "mainspring-digest", "mainspring-config"  # tags
_SERVICE, _DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"
_POLICY = "mainspring-requests"
_MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_STATES: Mapping[str, State] = {"InService": "ready", "Failed": "failed", "OutOfService": "failed",
                                "UpdateRollbackFailed": "failed"}  # fmt: skip
_RETAIN = {made.RETAINED: True, "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}]}
_LOOK_S = 2.0


@dataclass(frozen=True)
class Resources:
    """Resources of one region.

    Args:
        client: Of SageMaker.
        scaling: Client of Application Auto Scaling.
        tags: Of all that is made.
        wait_s: Longest time in which an endpoint settles or a removed one is gone.
    """

    client: Any
    scaling: Any
    tags: Mapping[str, str]
    wait_s: float

    def look(self, id: str) -> Seen:
        kind, _, name = id.partition("/")
        try:
            return self._lookers[kind](name)
        except Absent:
            return ABSENT

    def make(self, piece: Piece) -> None:
        request = json.loads(piece.content)
        if piece.kind == made.ENDPOINT:
            self._make_endpoint(piece, request)
        elif piece.kind == made.SCALING:
            self._make_scaling(piece, request)
        elif piece.kind == made.PACKAGE:
            self._make_package(piece, request)
        elif (seen := self.look(piece.id)).state == "absent":
            asked(self._creators[piece.kind], **request, Tags=self._tagged(piece))
        elif seen.digest != piece.digest:
            self._check_own(piece.id)
            # Its name has a digest of its content, or it has no content: the tag alone was changed.
            asked(self.client.add_tags, ResourceArn=self._arn(piece.kind, piece.name), Tags=self._tagged(piece))

    def remove(self, id: str) -> None:
        kind, _, name = id.partition("/")
        try:
            if kind == made.SCALING:
                self._remove_scaling(name)
            elif kind == made.PACKAGE:
                for package in list(self._packages(name)):
                    asked(self.client.delete_model_package, ModelPackageName=package["ModelPackageArn"])
            elif self._own(kind, name):
                if kind == made.ENDPOINT:
                    self._remove_endpoint(name)
                else:
                    asked(self._removers[kind], **{_KEY[kind]: name})
        except Absent:
            return

    # Models, configurations, groups of packages

    @property
    def _lookers(self) -> Mapping[str, Callable[[str], Seen]]:
        plain = {kind: lambda name, kind=kind: Seen("ready", self._digest(kind, name)) for kind in _PLAIN}
        return {**plain, made.ENDPOINT: self._endpoint, made.SCALING: self._scaled, made.PACKAGE: self._package}

    @property
    def _creators(self) -> Mapping[str, Callable[..., Any]]:
        client = self.client
        return {made.MODEL: client.create_model, made.CONFIG: client.create_endpoint_config,
                made.GROUP: client.create_model_package_group}  # fmt: skip

    @property
    def _removers(self) -> Mapping[str, Callable[..., Any]]:
        client = self.client
        return {made.MODEL: client.delete_model, made.CONFIG: client.delete_endpoint_config,
                made.GROUP: client.delete_model_package_group}  # fmt: skip

    def _describe(self, kind: str, name: str) -> Answer:
        client = self.client
        calls = {made.MODEL: client.describe_model, made.CONFIG: client.describe_endpoint_config,
                 made.GROUP: client.describe_model_package_group, made.ENDPOINT: client.describe_endpoint}  # fmt: skip
        return asked(calls[kind], **{_KEY[kind]: name})

    def _arn(self, kind: str, name: str) -> str:
        return str(self._describe(kind, name)[f"{kind}Arn"])

    def _tags(self, kind: str, name: str) -> dict[str, str]:
        return self._tags_of(self._arn(kind, name))

    def _tags_of(self, arn: str) -> dict[str, str]:
        return {each["Key"]: each["Value"] for each in asked(self.client.list_tags, ResourceArn=arn)["Tags"]}

    def _tagged(self, piece: Piece, **more: str) -> list[dict[str, str]]:
        return [{"Key": name, "Value": value} for name, value in {**self.tags, DIGEST: piece.digest, **more}.items()]

    def _digest(self, kind: str, name: str) -> str:
        return self._tags(kind, name).get(DIGEST, "")

    def _own(self, kind: str, name: str) -> bool:
        return DIGEST in self._tags(kind, name)

    def _check_own(self, id: str) -> None:
        kind, _, name = id.partition("/")
        if not self._own(kind, name):
            raise Conflict(
                f"{id} is there, and no deployment made it.", fix="remove it, or rename the target or the endpoint."
            )

    # Endpoints

    def _endpoint(self, name: str) -> Seen:
        found = self._describe(made.ENDPOINT, name)
        tags = self._tags_of(found["EndpointArn"])
        status, why = found["EndpointStatus"], str(found.get("FailureReason") or "")
        digest = tags.get(DIGEST, "")
        if status in _MOVING:
            return Seen("starting", digest, status)
        if status == "InService" and tags.get(CONFIG) != found["EndpointConfigName"]:
            return Seen("ready", "", f"it has the configuration {found['EndpointConfigName']}")
        return Seen(_STATES.get(status, "failed"), digest, why or ("" if status == "InService" else status))

    def _status(self, name: str) -> str:
        """Return the status of an endpoint; empty if there is none."""
        try:
            return str(self._describe(made.ENDPOINT, name)["EndpointStatus"])
        except Absent:
            return ""

    def _make_endpoint(self, piece: Piece, request: Answer) -> None:
        name, config = piece.name, request["EndpointConfigName"]
        if self._status(name):
            self._check_own(piece.id)
        self._settle(name)
        if self._status(name) in ("Failed", "OutOfService"):  # which can only be deleted
            self._remove_endpoint(name)
        retained = request.pop(made.RETAINED)
        if not self._status(name):
            asked(self.client.create_endpoint, **request, Tags=self._tagged(piece, **{CONFIG: config}))
            return
        if self._describe(made.ENDPOINT, name)["EndpointConfigName"] != config:
            stopped = self._stop_scaling(name, config)
            try:
                asked(self.client.update_endpoint, **request, **(_RETAIN if retained else {}))
                self._settle(name)  # what it had before is removed next
            finally:
                if self._status(name) == "InService":
                    for each in stopped:
                        self._put_scaling(each)
            found = self._describe(made.ENDPOINT, name)
            if found["EndpointConfigName"] != config:
                raise Invalid(
                    f"{piece.id} is as it was: SageMaker took its update back: {found.get('FailureReason')}",
                    fix="see its log in CloudWatch (/aws/sagemaker/Endpoints/NAME), and deploy again.",
                )
        arn = self._arn(made.ENDPOINT, name)
        asked(self.client.add_tags, ResourceArn=arn, Tags=self._tagged(piece, **{CONFIG: config}))

    def _remove_endpoint(self, name: str) -> None:
        for variant in self._describe(made.ENDPOINT, name).get("ProductionVariants", []):
            self.remove(f"{made.SCALING}/{name}/{variant['VariantName']}")
        try:
            asked(self.client.delete_endpoint, EndpointName=name)
        except Invalid:
            if self._status(name) not in _MOVING:
                raise
            self._settle(name)
            asked(self.client.delete_endpoint, EndpointName=name)
        self._await(lambda: self._status(name) == "", f"Endpoint {name} is being deleted")

    def _settle(self, name: str) -> None:
        """Wait while an endpoint is being made or changed."""
        self._await(lambda: self._status(name) not in _MOVING, f"Endpoint {name} is {self._status(name)}")

    def _stop_scaling(self, name: str, config: str) -> list[Answer]:
        """Take variants out of scaling that the next configuration has not, or on another type of instances.

        An endpoint could not be updated with them:
        https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html

        Returns:
            Scaling of the variants that the next configuration has, too, to be put back.
        """
        before, after = (
            self._instances(self._describe(made.ENDPOINT, name)["EndpointConfigName"]),
            self._instances(config),
        )
        stopped = []
        for variant, instance in before.items():
            if after.get(variant) != instance:
                scaling = self._scaling(f"{name}/{variant}")
                self.remove(f"{made.SCALING}/{name}/{variant}")
                stopped += [scaling] if variant in after and scaling is not None else []
        return stopped

    def _instances(self, config: str) -> dict[str, str]:
        """Return variant -> type of its instances."""
        variants = self._describe(made.CONFIG, config)["ProductionVariants"]
        return {each["VariantName"]: each.get("InstanceType", "") for each in variants}

    def _await(self, done: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + self.wait_s
        while not done():
            if time.monotonic() > until:
                raise Unavailable(f"{what} for {self.wait_s:.0f} s.", fix="wait, then run the command again.")
            time.sleep(min(_LOOK_S, self.wait_s / 10))

    # Scaling

    def _resource(self, name: str) -> str:
        endpoint, _, variant = name.partition("/")
        return f"endpoint/{endpoint}/variant/{variant}"

    def _registered(self, name: str) -> Answer | None:
        found = asked(
            self.scaling.describe_scalable_targets,
            ServiceNamespace=_SERVICE,
            ResourceIds=[self._resource(name)],
            ScalableDimension=_DIMENSION,
        )["ScalableTargets"]
        return found[0] if found else None

    def _policies(self, name: str) -> list[Answer]:
        found: list[Answer] = asked(
            self.scaling.describe_scaling_policies, ServiceNamespace=_SERVICE, ResourceId=self._resource(name),
            ScalableDimension=_DIMENSION,
        )["ScalingPolicies"]  # fmt: skip
        return found

    def _scaled(self, name: str) -> Seen:
        target, there = self._registered(name), self._policies(name)
        policies = [each for each in there if each["PolicyName"] == _POLICY]
        if target is None or (there and not policies):  # the policy is the piece; those of others are theirs
            return ABSENT
        if not policies:
            return Seen("ready", "", "it has no policy")
        content = json.dumps(_request(target, policies[0]), indent=2, sort_keys=True).encode() + b"\n"
        return Seen("ready", Piece(id=f"{made.SCALING}/{name}", content=content).digest)

    def _scaling(self, name: str) -> Answer | None:
        """Return the request that scales a variant as it is scaled by a deployment; `None` if it is not."""
        target = self._registered(name)
        policy = next((each for each in self._policies(name) if each["PolicyName"] == _POLICY), None)
        return None if target is None or policy is None else _request(target, policy)

    def _make_scaling(self, piece: Piece, request: Answer) -> None:
        policies = {each["PolicyName"] for each in self._policies(piece.name)}
        if self._registered(piece.name) is not None and policies and _POLICY not in policies:
            raise Conflict(
                f"{piece.id} is scaled by {', '.join(sorted(policies))}, which no deployment made.",
                fix="remove that policy, or write the same least and most replicas.",
            )
        self._check_in_service(piece.name.partition("/")[0])
        self._put_scaling(request)

    def _put_scaling(self, request: Answer) -> None:
        where = {"ServiceNamespace": _SERVICE, "ResourceId": request["ResourceId"], "ScalableDimension": _DIMENSION}
        capacities = {name: request[name] for name in ("MinCapacity", "MaxCapacity")}
        asked(self.scaling.register_scalable_target, **where, **capacities)
        asked(
            self.scaling.put_scaling_policy,
            **where,
            PolicyName=_POLICY,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=request["Policy"],
        )

    def _check_in_service(self, endpoint: str) -> None:
        """Wait until an endpoint is in service: others cannot be scaled.

        Raises:
            Invalid: It failed.
        """
        self._settle(endpoint)
        found = self._describe(made.ENDPOINT, endpoint)
        if found["EndpointStatus"] != "InService":
            raise Invalid(
                f"Endpoint {endpoint} is {found['EndpointStatus']}: {found.get('FailureReason')}",
                fix=f"see its log in CloudWatch (/aws/sagemaker/Endpoints/{endpoint}), and deploy again.",
            )

    def _remove_scaling(self, name: str) -> None:
        policies = {each["PolicyName"] for each in self._policies(name)}
        where = {"ServiceNamespace": _SERVICE, "ResourceId": self._resource(name), "ScalableDimension": _DIMENSION}
        if _POLICY in policies:
            asked(self.scaling.delete_scaling_policy, **where, PolicyName=_POLICY)
        if policies <= {_POLICY}:  # else somebody else scales it
            asked(self.scaling.deregister_scalable_target, **where)

    # Registry: versions of a group have no tags of their own, but metadata

    def _packages(self, group: str) -> Iterator[Answer]:
        """Yield the packages of a group that deployments made, the newest first."""
        for page in pages(
            self.client, "list_model_packages", ModelPackageGroupName=group, SortBy="CreationTime",
            SortOrder="Descending",
        ):  # fmt: skip
            for each in page["ModelPackageSummaryList"]:
                found = asked(self.client.describe_model_package, ModelPackageName=each["ModelPackageArn"])
                if DIGEST in found.get("CustomerMetadataProperties", {}):
                    yield found

    def _package(self, group: str) -> Seen:
        newest = next(self._packages(group), None)
        if newest is None:
            return ABSENT
        return Seen("ready", newest["CustomerMetadataProperties"][DIGEST], newest.get("ModelApprovalStatus", ""))

    def _make_package(self, piece: Piece, request: Answer) -> None:
        if self._package(piece.name).digest != piece.digest:
            request["CustomerMetadataProperties"][DIGEST] = piece.digest
            asked(self.client.create_model_package, **request)


def _request(target: Answer, policy: Answer) -> Answer:
    """Return the content of a piece of scaling, as it is there."""
    told = {"DisableScaleIn": False, **policy["TargetTrackingScalingPolicyConfiguration"]}
    return {**{name: target[name] for name in ("ResourceId", "MinCapacity", "MaxCapacity")}, "Policy": told}


_PLAIN = (made.MODEL, made.CONFIG, made.GROUP)
_KEY = {made.MODEL: "ModelName", made.CONFIG: "EndpointConfigName", made.GROUP: "ModelPackageGroupName",
        made.ENDPOINT: "EndpointName"}  # fmt: skip
