"""Options of the kind `sagemaker`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}", re.ASCII)
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+", re.ASCII)
_TAG = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_MOST_TAGS = 48  # of 50: two are ours
# Types with volumes of their own, which the machine encrypts itself: "You can't request a KmsKeyId when using an
# instance type with local storage" (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html).
_LOCAL = re.compile(r"ml\.([cmr]\d+[a-z]*d[a-z]*|g4dn|g5|g6e?|gr6|p3dn|p4de?|p[56][a-z-]*|trn\d[a-z]*|i\d[a-z]*)\.")
_OWN_TAG = "mainspring"
_STARTUP_S = (60, 3600)  # of a container's start, as SageMaker has it


class SagemakerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `sagemaker`.

    Attributes:
        role: ARN of the role that containers have: SageMaker pulls the image and writes logs with it.
        instance: Type of the instances.
        requests_per_minute: Of one instance, at which it is scaled; needed if the least and the most replicas differ.
        startup_s: Time in which a container has to be ready.
        subnets, security_groups: Private network of the containers; empty: none.
        isolated: Whether containers can reach no network.
        kms: Key by which the volumes of instances are encrypted: its ARN, id or alias.
        registry: Whether versions are in SageMaker's model registry, too.
        notify: ARN of a topic of SNS that is told of alarms of the endpoints' objectives; without one there are none.
        tags: Further tags of all that is made.
    """

    role: str
    instance: str = "ml.m5.large"
    requests_per_minute: float = 0.0
    startup_s: int = 600
    subnets: list[str] = []
    security_groups: list[str] = []
    isolated: bool = True
    kms: str = ""
    registry: bool = True
    notify: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        check_role(self.role)
        check_instance(self.instance)
        check_topic(self.notify)
        if not 0 <= self.requests_per_minute < float("inf"):
            raise ValueError(f"requests_per_minute is {self.requests_per_minute}: write a positive number")
        if not _STARTUP_S[0] <= self.startup_s <= _STARTUP_S[1]:
            raise ValueError(f"startup_s is {self.startup_s}: write {_STARTUP_S[0]} to {_STARTUP_S[1]}")
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups are given together")
        for name, value in self.tags.items():
            if not _TAG.fullmatch(name) or name.lower().startswith((_OWN_TAG, "aws:")):
                raise ValueError(f"tags has {name!r}: names begin with neither {_OWN_TAG} nor aws:")
            if not _TAG_VALUE.fullmatch(value):
                raise ValueError(f"tags has {name!r} = {value!r}: write letters, digits, blanks and . : / = + @ - _")
        if len(self.tags) > _MOST_TAGS:
            raise ValueError(f"tags are {len(self.tags)}: write up to {_MOST_TAGS}")
        if self.kms and _LOCAL.match(self.instance):
            raise ValueError(
                f"kms is given, and {self.instance} has volumes of its own, which it encrypts itself: leave kms out"
            )


def check_role(role: str) -> None:
    """Raise if a text is no ARN of a role.

    Raises:
        ValueError: It is not.
    """
    if not _ROLE.fullmatch(role):
        raise ValueError(f"role is {role!r}: write the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME")


def check_topic(topic: str) -> None:
    """Raise if a text is neither empty nor the ARN of a topic.

    Raises:
        ValueError: It is not.
    """
    if topic and not _TOPIC.fullmatch(topic):
        raise ValueError(f"notify is {topic!r}: write the ARN of a topic of SNS")


def check_instance(instance: str) -> None:
    """Raise if a text is no type of SageMaker's instances.

    Raises:
        ValueError: It is not.
    """
    if not _INSTANCE.fullmatch(instance):
        raise ValueError(f"instance is {instance!r}: write a type of instances, such as ml.m5.large")
