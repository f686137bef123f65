"""Values of Google's module: what surrounds endpoints of Vertex AI. The endpoints are made by `apply.py`.

Metrics and their labels: https://cloud.google.com/monitoring/api/metrics_gcp_a_b#gcp-aiplatform; their names in PromQL:
https://cloud.google.com/monitoring/promql/promql-mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.manifests.clouds.vertex import VertexOptions, endpoint_names, label
from mainspring.deploy.manifests.kinds import object_name
from mainspring.deploy.targets.model import Deployment
from mainspring.deploy.terraform.grants import Grant, grants, grants_page, grants_text
from mainspring.deploy.terraform.hcl import attributes, comment
from mainspring.deploy.terraform.module import module_files

CLOUD = "google"
_REGION = re.compile(r"(africa|asia|australia|europe|me|northamerica|southamerica|us)-[a-z]+\d{1,2}")
_IMAGE = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([a-z][-a-z0-9]{4,28}[a-z0-9])/([a-z0-9-]+)/.+")
_TEMPLATE = re.compile(r"https://([a-z0-9-]+)-kfp\.pkg\.dev/([a-z][-a-z0-9]{4,28}[a-z0-9])/([a-z0-9-]+)/.+")
_METRICS = "aiplatform_googleapis_com:prediction_online"
# After which Vertex AI shows a sample at the latest. A window that ends now would lack its last requests.
_DELAY = "6m"


def google_files(
    deployment: Deployment,
    options: VertexOptions,
    alarms: Sequence[BurnAlarm],
    sign: Callable[[bytes], bytes],
) -> dict[str, str]:
    """Return the files of the module by name.

    Raises:
        Invalid: The region is none of Google's, or an image or a template is not in Artifact Registry.
    """
    table = grants(CLOUD)
    values = google_values(deployment, options, alarms)
    rights = grants_text(table, _role, _own_role)
    return module_files(CLOUD, deployment, values, iam=rights, page=grants_page(table), sign=sign)


def google_values(deployment: Deployment, options: VertexOptions, alarms: Sequence[BurnAlarm] = ()) -> dict[str, Any]:
    """Return the values of the module's variables.

    Args:
        alarms: Of the project's objectives; those of other endpoints are left out.
    """
    if not _REGION.fullmatch(deployment.region):
        raise Invalid(
            f"The region of target {deployment.target!r} is {deployment.region!r}.",
            fix='write region = "europe-west4".',
        )
    account, _, home = options.service_account.removesuffix(".iam.gserviceaccount.com").partition("@")
    images = [deployment.image, *([options.training_image] if options.trainings else [])]
    given = {"project": deployment.project, "target": deployment.target}
    jobs = bool(options.trainings or options.pipelines)
    return {
        "project": options.project,
        "name": object_name(deployment.project, deployment.target),
        "labels": {"managed-by": "mainspring", **{name: label(value) for name, value in given.items()}},
        "region": deployment.region,
        "account": {"id": account, "project": home},
        "repositories": _repositories(images, _IMAGE, "image", "REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME"),
        "templates": _repositories(
            options.pipelines.values(), _TEMPLATE, "pipeline", "https://REGION-kfp.pkg.dev/PROJECT/REPOSITORY/NAME"
        ),
        "pipelines": bool(options.pipelines),
        "bucket": options.bucket.removeprefix("gs://").partition("/")[0] if jobs else "",
        "kms_key": options.kms_key,
        "private": options.access == "private",
        "subnet": options.subnet,
        "deployers": sorted(set(options.deployers)),
        "callers": sorted(set(options.callers)),
        "address": options.notify_address,
        "channel": "" if options.notify_address else options.notify,
        "alarms": dict(_alarms(deployment, alarms)) if options.notify else {},
    }


def _repositories(names: Iterable[str], pattern: re.Pattern[str], what: str, form: str) -> dict[str, dict[str, str]]:
    """Return the repositories of images or templates, by a name of each."""
    found = {}
    for name in names:
        parts = pattern.fullmatch(name)
        if parts is None:
            raise Invalid(
                f"The {what} {name!r} is not in Artifact Registry, where the module lets it be read.",
                fix=f"write {form}",
            )
        found["/".join(parts.groups())] = dict(zip(("location", "project", "repository"), parts.groups(), strict=True))
    return found


def _alarms(deployment: Deployment, alarms: Sequence[BurnAlarm]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield alarms by name: of each endpoint's objectives, and of too few replicas."""
    least = deployment.replicas[0]
    for endpoint, name in endpoint_names(deployment).items():
        of = _of(name, deployment.region)
        replicas = f"{_METRICS}_replicas{{{of}}} offset {_DELAY}"
        too_few = {
            "about": f"{endpoint} has fewer than {least} replicas for 10 minutes, or says nothing of them.",
            "query": f"sum({replicas}) < {least} or absent({replicas})",
            "for_s": 600,
            "severity": "CRITICAL",
        }
        yield f"{name}-replicas", too_few
        for each in alarms:
            if each.endpoint == endpoint:
                yield f"{name}-{each.name}", _burning(each, of)


def _burning(alarm: BurnAlarm, of: str) -> dict[str, Any]:
    return {
        "about": alarm.told(alarm.long_s, alarm.short_s),
        "query": " and ".join(_over(alarm, of, seconds) for seconds in (alarm.long_s, alarm.short_s)),
        "for_s": 0,
        "severity": "CRITICAL" if alarm.page else "WARNING",
    }


def _of(name: str, region: str) -> str:
    """Return the labels of an endpoint's metrics."""
    given = {"monitored_resource": "aiplatform.googleapis.com/Endpoint", "location": region, "endpoint_id": name}
    return ",".join(f"{label}={json.dumps(value)}" for label, value in given.items())


def _over(alarm: BurnAlarm, of: str, seconds: int) -> str:
    """Return a query in PromQL that has an answer just where a window is over its limit."""
    window = f"[{seconds}s] offset {_DELAY}"
    if alarm.within_s:
        total = f'{{{of},latency_type=~"total|"}}{window}'  # those in `private` have no such label
        buckets = _either(f"sum by (le) (increase({_METRICS}@_prediction_latencies_bucket{total}))")
        slow, fewest = f"{buckets}) > {alarm.within_s * 1000:g}", alarm.fewest_in(seconds)
        over = f"histogram_quantile({1 - alarm.share:.10g}, {slow}"
        if fewest == 1:
            return over
        answers = _either(f"sum(increase({_METRICS}@_prediction_latencies_count{total}))")
        # The answer that has so many slower ones is too slow itself. Counts of a window are not whole numbers.
        return f"{over} and histogram_quantile(scalar(1 - {fewest - 0.5:g} / {answers}), {slow}"

    def counted(labels: str) -> str:
        return _either(f"sum(increase({_METRICS}@_response_count{{{labels}}}{window}))")

    bad = counted(f'{of},response_code=~"5.."')
    answered = counted(f'{of},response_code!~"4.."')  # a caller's mistake is neither good nor bad
    over, fewest = f"{bad} / {answered} > {alarm.share:.10g}", alarm.fewest_in(seconds)
    return over if fewest == 1 else f"{over} and {bad} >= {fewest}"


def _either(query: str) -> str:
    """Return a query of the metric that there is, of two that differ at `@`: some private endpoints have their own."""
    return f"({query.replace('@', '')} or {query.replace('@', '_private')})"


def _role(made: Grant) -> Mapping[str, str]:
    own = f"google_project_iam_custom_role.{made.name}.id"
    return {"role": own if made.permissions else json.dumps(made.role)}


def _own_role(made: Grant) -> Iterator[str]:
    """Yield the lines of a role of the module's own. Ids of such roles have no `-`."""
    yield from comment(f"{made.who}: {', '.join(made.permissions)} alone.", 0)
    yield f'resource "google_project_iam_custom_role" {json.dumps(made.name)} {{'
    fields = {
        "role_id": f'"${{replace(var.name, "-", "_")}}_{made.name}"',
        "title": f'"${{var.name}}: {made.role}"',
        "permissions": json.dumps(list(made.permissions)),
    }
    yield from attributes(fields, 2)
    yield "}"
