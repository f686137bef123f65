"""Moto's server for SageMaker in this process, mended where it is not as Amazon's.

Moto makes what is there already once more, has endpoints that are in service at once and are gone at once, cannot
update them, removes what is in use, keeps two tags of one name, and knows neither deletions of model packages nor
quotas of SageMaker nor alarms of alarms. Whether an image exists is Moto's ECR's to say.
"""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

ACCOUNT, REGION = "123456789012", "eu-west-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/mainspring"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop:1"
_PAGE = 2


class _Refused(Exception):
    pass


@dataclass
class _Course:
    """What happens to an endpoint: so many looks until it is settled, and how."""

    looks: int
    config: str = ""
    fails: str = ""
    gone: bool = False
    retains: bool = False


@dataclass
class SagemakerServer:
    """Attributes:
    looks: How often an endpoint is seen moving before it is settled.
    fails: Endpoint -> reason for which its next creation or update fails.
    quotas: Name -> value; `usual`: those of an account that has none of its own.
    denied: Actions that are refused; `broken`: that are answered with 500.
    calls: Actions in order, without those that only look; `sent`: with their bodies.
    done: Is called after each of these.
    """

    url: str = ""
    looks: int = 2
    fails: dict[str, str] = field(default_factory=dict)
    quotas: dict[str, float] = field(default_factory=dict)
    usual: dict[str, float] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    sent: list[tuple[str, Any]] = field(default_factory=list)
    done: Callable[[], None] = lambda: None
    _courses: dict[str, _Course] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from moto.cloudwatch.responses import CloudWatchResponse
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        setattr(CloudWatchResponse, "put_composite_alarm", _put_composite_alarm)  # noqa: B010  (it has none)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.RLock()

    @property
    def backend(self) -> Any:
        from moto.sagemaker.models import sagemaker_backends

        return sagemaker_backends[ACCOUNT][REGION]

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            if action and not action.startswith(("Describe", "List")):
                self.calls.append(action)
                self.sent.append((action, json.loads(body)))
            try:
                if action in self.denied:
                    return _json(start, {"__type": "AccessDeniedException", "message": f"not to {action}"}, 400)
                if action in self.broken:
                    return _json(start, {"__type": "InternalFailure", "message": "an error inside"}, 500)
                known = getattr(self, f"_{action}", None)
                told = known(json.loads(body)) if known is not None else None
            except _Refused as error:
                return _json(start, {"__type": "ValidationException", "message": str(error)}, 400)
            if told is not None:
                return _json(start, told)
            answer: Iterable[bytes] = self._moto(environ, start)
            if action == "CreateEndpoint":
                self._created(json.loads(body)["EndpointName"])
            if self.calls and self.calls[-1] == action:
                self.done()
            return answer

    def _CreateModel(self, asked: Any) -> None:
        _refuse(asked["ModelName"] in self.backend._models, "Cannot create already existing model")

    def _CreateEndpointConfig(self, asked: Any) -> None:
        _refuse(asked["EndpointConfigName"] in self.backend.endpoint_configs, "Cannot create already existing config")

    def _CreateEndpoint(self, asked: Any) -> None:
        _refuse(asked["EndpointName"] in self.backend.endpoints, "Cannot create already existing endpoint")

    def _created(self, name: str) -> None:
        if name in self.backend.endpoints and name not in self._courses:
            made = self.backend.endpoints[name]
            made.endpoint_status = "Creating"
            self._courses[name] = _Course(self.looks, made.endpoint_config_name, self.fails.pop(name, ""))

    def _DescribeEndpoint(self, asked: Any) -> None:
        name = asked["EndpointName"]
        course, made = self._courses.get(name), self.backend.endpoints.get(name)
        if course is None or made is None:
            return
        course.looks -= 1
        if course.looks >= 0:
            return
        del self._courses[name]
        if course.gone:
            del self.backend.endpoints[name]
        elif course.fails:
            made.failure_reason = course.fails
            made.endpoint_status = "Failed" if made.endpoint_status == "Creating" else "InService"
        else:
            made.endpoint_status, made.failure_reason = "InService", None
            made.endpoint_config_name = course.config
            config, before = self.backend.endpoint_configs[course.config], made.production_variants
            made.production_variants = made._process_production_variants(config.production_variants)
            for each, old in zip(made.production_variants, before if course.retains else (), strict=False):
                each["CurrentInstanceCount"] = old["CurrentInstanceCount"]

    def _UpdateEndpoint(self, asked: Any) -> Any:
        name = asked["EndpointName"]
        made = self._settled(name)
        _refuse(asked["EndpointConfigName"] not in self.backend.endpoint_configs, "Could not find configuration")
        _refuse(made.endpoint_status != "InService", f"Cannot update in-progress endpoint {name}")
        next_ones = self.backend.endpoint_configs[asked["EndpointConfigName"]].production_variants
        now = self.backend.endpoint_configs[made.endpoint_config_name].production_variants
        types = {each["VariantName"]: each["InstanceType"] for each in now}
        variants = {each["VariantName"] for each in next_ones
                    if each["InstanceType"] == types.get(each["VariantName"], each["InstanceType"])}  # fmt: skip
        from moto.applicationautoscaling.models import applicationautoscaling_backends

        for targets in applicationautoscaling_backends[ACCOUNT][REGION].targets.values():
            for resource in targets:
                _, endpoint, _, variant = resource.split("/")
                _refuse(endpoint == name and variant not in variants, f"{resource} is registered as scalable target")
        made.endpoint_status = "Updating"
        fails, retains = self.fails.pop(name, ""), asked.get("RetainAllVariantProperties", False)
        self._courses[name] = _Course(self.looks, asked["EndpointConfigName"], fails, retains=retains)
        return {"EndpointArn": made.arn}

    def _DeleteEndpoint(self, asked: Any) -> Any:
        made = self._settled(asked["EndpointName"])
        made.endpoint_status = "Deleting"
        self._courses[asked["EndpointName"]] = _Course(self.looks, gone=True)
        return {}

    def _settled(self, name: str) -> Any:
        made = self.backend.endpoints.get(name)
        _refuse(made is None, f"Could not find endpoint {name}")
        _refuse(name in self._courses, f"Cannot change in-progress endpoint {name}")
        return made

    def _RegisterScalableTarget(self, asked: Any) -> None:
        name = asked["ResourceId"].split("/")[1]
        made = self.backend.endpoints.get(name)
        _refuse(made is None or made.endpoint_status != "InService", f"Endpoint {name} is not in service")

    def _DeleteEndpointConfig(self, asked: Any) -> None:
        used = {each.endpoint_config_name for each in self.backend.endpoints.values()}
        used |= {each.config for each in self._courses.values()}
        _refuse(asked["EndpointConfigName"] in used, "Cannot delete a configuration in use")

    def _DeleteModel(self, asked: Any) -> None:
        used = {one["ModelName"] for each in self.backend.endpoint_configs.values() for one in each.production_variants}
        _refuse(asked["ModelName"] in used, "Cannot delete a model in use")

    def _AddTags(self, asked: Any) -> None:
        keys = [each["Key"] for each in asked["Tags"]]
        self.backend.delete_tags(asked["ResourceArn"], keys)

    def _DeleteModelPackage(self, asked: Any) -> Any:
        _refuse(asked["ModelPackageName"] not in self.backend.model_packages, "Model package not found")
        del self.backend.model_packages[asked["ModelPackageName"]]
        return {}

    def _DeleteModelPackageGroup(self, asked: Any) -> Any:
        name = asked["ModelPackageGroupName"]
        _refuse(name not in self.backend.model_package_groups, "Model package group does not exist")
        left = [each for each in self.backend.model_packages.values() if each.model_package_group_name == name]
        _refuse(bool(left), "Model package group is not empty")
        del self.backend.model_package_groups[name]
        return {}

    def _CreateModelPackageGroup(self, asked: Any) -> None:
        exists = asked["ModelPackageGroupName"] in self.backend.model_package_groups
        _refuse(exists, "Model package group already exists")

    def _ListServiceQuotas(self, asked: Any) -> Any:
        return _page(self.quotas, asked)

    def _ListAWSDefaultServiceQuotas(self, asked: Any) -> Any:
        return _page(self.usual, asked)

    def reset(self) -> None:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30):
            pass
        fresh = SagemakerServer()
        for name in ("looks", "fails", "quotas", "usual", "denied", "broken", "calls", "sent", "done", "_courses"):
            setattr(self, name, getattr(fresh, name))


def _put_composite_alarm(response: Any) -> Any:
    """Make an alarm of other alarms, which Moto describes and does not make."""
    from moto.cloudwatch.exceptions import ValidationError
    from moto.core.responses import EmptyResult

    told, backend = response._get_param, response.cloudwatch_backend
    rule = told("AlarmRule")
    if missing := [each for each in re.findall(r'ALARM\("([^"]+)"\)', rule) if each not in backend.alarms]:
        raise ValidationError(f"Could not save the composite alarm as alarms {missing} do not exist.")
    unused = dict.fromkeys(("namespace", "metric_name", "comparison_operator", "evaluation_periods", "period",
                            "threshold", "statistic"))  # fmt: skip
    made = backend.put_metric_alarm(
        name=told("AlarmName"), description=told("AlarmDescription"), alarm_actions=told("AlarmActions", []),
        ok_actions=told("OKActions", []), dimensions=[], rule=rule, tags=told("Tags", []), **unused,
    )  # fmt: skip
    made.alarm_rule = rule
    return EmptyResult()


def _page(quotas: dict[str, float], asked: Any) -> Any:
    begin, names = int(asked.get("NextToken") or 0), sorted(quotas)
    page = [{"QuotaName": each, "Value": quotas[each]} for each in names[begin : begin + _PAGE]]
    more = {"NextToken": str(begin + _PAGE)} if begin + _PAGE < len(names) else {}
    return {"Quotas": page, **more}


def _refuse(when: bool, why: str) -> None:
    if when:
        raise _Refused(why)


def _json(start: Any, answer: Any, status: int = 200) -> list[bytes]:
    start(f"{status} -", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps(answer).encode()]


@contextmanager
def _serving() -> Iterator[SagemakerServer]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: Any) -> None:
            pass

    found = SagemakerServer()
    server = make_server("127.0.0.1", 0, found, threaded=True, request_handler=Quiet)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def sagemaker_at() -> Iterator[SagemakerServer]:
    with _serving() as found:
        yield found


@pytest.fixture
def sagemaker(sagemaker_at: SagemakerServer, monkeypatch: pytest.MonkeyPatch) -> SagemakerServer:
    """The server, empty but for the image, with its address and credentials in the environment."""
    import boto3

    sagemaker_at.reset()
    for name, value in {
        "AWS_ENDPOINT_URL": sagemaker_at.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName="shop")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}
    ecr.put_image(repositoryName="shop", imageManifest=json.dumps(manifest), imageTag="1")
    return sagemaker_at
