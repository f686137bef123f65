"""Values of AWS's module: tasks of ECS on Fargate in a network without a way to the internet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from math import ceil
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.manifests.kinds import object_name
from mainspring.deploy.targets.model import Deployment, Needs
from mainspring.deploy.terraform.alarms import alarm_values
from mainspring.deploy.terraform.options import TerraformOptions

_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([a-z0-9][a-z0-9._/-]*)@sha256:[0-9a-f]{64}")
_REGION = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)(-[a-z]+)+-\d")
_LONGEST, _HASH = 22, 7  # of a name: names of target groups have 32 characters, with what is added
_LONGEST_STOP_S = 120  # that Fargate waits
_LEAST_IDLE_S, _MOST_IDLE_S = 25, 4000  # of the load balancer: less than the gateway's own, and the most that it has
# Units of processors -> least and most memory in GiB, and its steps; 256 units also have half a GiB.
_SIZES = {256: (1, 2, 1), 512: (1, 4, 1), 1024: (2, 8, 1), 2048: (4, 16, 1), 4096: (8, 30, 1), 8192: (16, 60, 4),
          16384: (32, 120, 8)}  # fmt: skip
_GIB = 1 << 30
_MADE = frozenset(
    {"MAINSPRING_KEYS", "MAINSPRING_CATALOG", "MAINSPRING_TRACKING", "MAINSPRING_ONLINE", "MAINSPRING_VECTORS"}
)
_CONSOLE = 8081
_PROBE = """\
import http.client, ssl
unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
asked = http.client.HTTPSConnection("127.0.0.1", {port}, timeout=3, context=unverified)
asked.request("GET", "{path}")
raise SystemExit(asked.getresponse().status != 200)
"""


def aws_values(
    deployment: Deployment,
    options: TerraformOptions,
    *,
    drain_s: int,
    hosts: Sequence[str],
    alarms: Sequence[BurnAlarm] = (),
) -> dict[str, Any]:
    """Return the values of the module's variables.

    Args:
        drain_s: Longest time in which a gateway that ends answers its requests.
        hosts: Names of hosts to which the profile lets both planes answer.
        alarms: Of the project's objectives.

    Raises:
        Invalid: Fargate cannot have the deployment.
    """
    if not _REGION.fullmatch(deployment.region):
        raise Invalid(
            f"The region of target {deployment.target!r} is {deployment.region!r}.",
            fix='write region = "eu-central-1". Regions of China are not supported.',
        )
    if deployment.gpus:
        raise Invalid(
            f"Target {deployment.target!r} has {deployment.gpus} GPUs, and Fargate has none.",
            fix='write gpus = 0, or deploy to a cluster: kind = "kubernetes".',
        )
    least, most = deployment.replicas
    if not least:
        raise Invalid(
            f"Target {deployment.target!r} has no gateway while nobody calls, and then nothing measures that somebody "
            "does.",
            fix="write replicas = [1, N].",
        )
    cpu, memory = fargate_size(deployment.cpu, deployment.memory)
    worker_cpu, worker_memory = fargate_size(options.worker_cpu, options.worker_memory_mib << 20)
    idle_s = _idle_s(deployment)
    allowed = ",".join(dict.fromkeys([*options.hosts, *hosts]))
    return {
        "project": deployment.project,
        "target": deployment.target,
        "name": _name(deployment),
        "region": deployment.region,
        "image": deployment.image,
        "repository": _repository(deployment),
        "command": {"gateway": _only("gateway", "log"), "worker": _only("control", "worker")},
        "where": ["--project", options.project_folder, "--profile", check_id(deployment.profile, "profile")],
        "probe": {
            "gateway": _probe(deployment.port, "/v2/health/live"),
            "worker": _probe(_CONSOLE, "/health/live"),
        },
        "environment": {
            "MAINSPRING_GATEWAY_WORKERS": str(max(1, int(deployment.cpu))),
            **deployment.env,
            "MAINSPRING_ALLOWED_HOSTS": allowed,
            **({"MAINSPRING_GATEWAY_IDLE_TIMEOUT": f"{idle_s + 5}s"} if idle_s > _LEAST_IDLE_S else {}),
        },
        "secrets": sorted(set(deployment.secrets) - _MADE),
        "port": deployment.port,
        "cpu": cpu,
        "memory": memory,
        "least": least,
        "most": most,
        "worker": deployment.worker,
        "worker_cpu": worker_cpu,
        "worker_memory": worker_memory,
        "stop_timeout": min(_LONGEST_STOP_S, drain_s + 35),
        "idle_timeout": idle_s,
        "protected": options.protected,
        **alarm_values(alarms, [each.endpoint for each in deployment.services], options.notify),
        "zones": list(options.zones),
        "network": options.network,
        "clients": sorted(set(options.clients)),
        "scrapers": sorted(set(options.scrapers)),
        "tables": sorted(set(options.tables)),
        "certificate": options.certificate,
        "database_class": options.database,
        "database_storage": list(options.database_gib),
        "highly_available": options.highly_available,
        "database_authority": options.database_authority,
        "keep_logs": options.keep_logs,
        "keep_backups": options.keep_backups,
    }


def aws_needs(deployment: Deployment, options: TerraformOptions) -> dict[str, Needs]:
    """Return what is rented by the hour, by the file that makes it. Tasks are priced as `fargate-UNITS-MIB`."""
    place = f"aws/{deployment.region}"
    least, most = deployment.replicas
    units, mib = fargate_size(deployment.cpu, deployment.memory)
    found = {"gateway.tf": Needs(instance=f"{place}/fargate-{units}-{mib}", count=least, most=most)}
    if deployment.worker:
        units, mib = fargate_size(options.worker_cpu, options.worker_memory_mib << 20)
        found["worker.tf"] = Needs(instance=f"{place}/fargate-{units}-{mib}")
    found["stores.tf"] = Needs(instance=f"{place}/{options.database}", count=2 if options.highly_available else 1)
    return found


def fargate_size(cpu: float, memory: int) -> tuple[int, int]:
    """Return the smallest size of a task with so many cores and bytes: units of processors, and MiB.

    Raises:
        Invalid: None is large enough.
    """
    for units, (least, most, step) in _SIZES.items():
        if units < cpu * 1024:
            continue
        if units == 256 and memory <= _GIB // 2:
            return units, 512
        gib = max(least, -(-memory // _GIB))
        gib = least + -(-(gib - least) // step) * step
        if gib <= most:
            return units, gib * 1024
    raise Invalid(
        f"No task of Fargate has {cpu:g} cores and {memory / _GIB:.1f} GiB.",
        fix="16 cores and 120 GiB are the most: use more replicas, or a cluster.",
    )


def _idle_s(deployment: Deployment) -> int:
    """Return the time that the load balancer waits for a byte: with less it would answer 504 before a deadline."""
    longest = max((each.deadline_ms for each in deployment.services), default=0.0)
    seconds = max(_LEAST_IDLE_S, ceil(longest / 1000) + 5)
    if seconds > _MOST_IDLE_S:
        raise Invalid(
            f"An endpoint of target {deployment.target!r} has a deadline of {longest / 1000:g} s.",
            fix=f"the load balancer waits {_MOST_IDLE_S} s at most: give it a shorter deadline.",
        )
    return seconds


def _name(deployment: Deployment) -> str:
    """Return the beginning of all names; two deployments with other names have others."""
    plain = object_name(deployment.project, deployment.target)
    if len(plain) <= _LONGEST and not plain.startswith("internal-"):  # which load balancers may not begin with
        return plain
    mark = hashlib.sha256(plain.encode()).hexdigest()[:_HASH]
    begun = plain.removeprefix("internal-")[: _LONGEST - _HASH - 1].rstrip("-")
    return f"{begun}-{mark}"


def _repository(deployment: Deployment) -> str:
    """Return the ARN of the image's repository."""
    parts = _IMAGE.fullmatch(deployment.image)
    if parts is None or parts[2] != deployment.region:
        raise Invalid(
            f"The image of target {deployment.target!r} is {deployment.image!r}, not one by digest in ECR of "
            f"{deployment.region}.",
            fix="push it to a repository of ECR there, since the network has no way to other registries, and write "
            f'image = "ACCOUNT.dkr.ecr.{deployment.region}.amazonaws.com/NAME@sha256:..."',
        )
    partition = "aws-us-gov" if deployment.region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:ecr:{parts[2]}:{parts[1]}:repository/{parts[3]}"


def _only(*parts: str) -> list[str]:
    return ["up", "--contained", *(text for part in parts for text in ("--only", part))]


def _probe(port: int, path: str) -> list[str]:
    return ["python3", "-I", "-c", _PROBE.format(port=port, path=path)]
