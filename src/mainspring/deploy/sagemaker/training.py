"""A training job of SageMaker: the request that starts `mainspring train` in a container of the project's image.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html. On spot instances SageMaker starts
the container again after it was taken away, and the training goes on from its checkpoint, which lies in a bucket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.sagemaker.options import check_instance, check_role
from mainspring.deploy.sagemaker.requests import name_of
from mainspring.deploy.variables import check_no_secret

_FOLDER = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?")
_LONGEST_ARGUMENT, _LONGEST_RUN_S = 256, 28 * 86_400
_VOLUME_GIB = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything of a training job that the project does not say.

    Attributes:
        folder: Place in a bucket for the files of the run; of its own.
        longest_s: Time after which it is stopped; with spot also the longest wait, together.
    """

    role: str
    folder: str
    image: str
    name: str = ""
    instance: str = "ml.m5.xlarge"
    spot: bool = False
    longest_s: int = 86_400
    restarts: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    subnets: Sequence[str] = ()
    security_groups: Sequence[str] = ()


def training_job(model: str, arguments: Sequence[str], job: Job) -> dict[str, Any]:
    """Return the request.

    Args:
        arguments: Of `mainspring train`, with the model's name.

    Raises:
        Invalid: SageMaker would refuse it, or a variable may be a secret.
    """
    _check(job, arguments)
    waits = {"MaxWaitTimeInSeconds": job.longest_s} if job.spot else {}
    network = {"Subnets": list(job.subnets), "SecurityGroupIds": list(job.security_groups)}
    return {
        "TrainingJobName": name_of(job.name or model),
        "RoleArn": job.role,
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", "mainspring", "train"],
            "ContainerArguments": list(arguments),
        },
        "Environment": dict(job.env),
        "OutputDataConfig": {"S3OutputPath": job.folder},
        "ResourceConfig": {"InstanceType": job.instance, "InstanceCount": 1, "VolumeSizeInGB": _VOLUME_GIB},
        "StoppingCondition": {"MaxRuntimeInSeconds": job.longest_s, **waits},
        "EnableManagedSpotTraining": job.spot,
        "RetryStrategy": {"MaximumRetryAttempts": job.restarts},
        **({"VpcConfig": network} if job.subnets else {}),
    }


def _check(job: Job, arguments: Sequence[str]) -> None:
    check_no_secret(job.env, "leave {} out: a training job shows its variables to whom it shows itself.")
    try:
        check_role(job.role)
        check_instance(job.instance)
    except ValueError as error:
        raise Invalid(f"A training job cannot be made: {error}.") from None
    if not _FOLDER.fullmatch(job.folder):
        raise Invalid(f"--folder is {job.folder!r}.", fix="write a place in a bucket: s3://BUCKET/FOLDER.")
    if not job.image:
        raise Invalid("A training job needs an image.", fix="give --image: one in ECR with Mainspring and the project.")
    if not 60 <= job.longest_s <= _LONGEST_RUN_S:
        raise Invalid(f"--longest is {job.longest_s} s.", fix="write a duration of 1m to 28d.")
    if bool(job.subnets) != bool(job.security_groups):
        raise Invalid("--subnet and --security-group are given together.", fix="give both, or none.")
    for each in arguments:
        if len(each) > _LONGEST_ARGUMENT:
            raise Invalid(f"{each[:80]!r}... has {len(each)} characters.", fix=f"SageMaker takes {_LONGEST_ARGUMENT}.")
