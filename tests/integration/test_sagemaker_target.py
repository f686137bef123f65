"""Deployments to SageMaker: what it lacks is told, updates keep what serves, rollouts are variants."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest

import mainspring as ms
from kit.depot import Depot
from kit.depth import deep
from kit.sagemaker_server import ACCOUNT, IMAGE, REGION, ROLE, SagemakerServer
from mainspring.core.errors import Conflict, Invalid
from mainspring.deploy.adapters.targets.memory import MemoryRecords
from mainspring.deploy.adapters.targets.sagemaker import SagemakerTarget
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.sagemaker.options import SagemakerOptions
from mainspring.deploy.sagemaker.requests import name_of
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Piece, Service
from mainspring.project.objective_alarms import objective_alarms

SERVICE = Service(
    endpoint="late", model="late", version="late:3", bundle="ab" * 32, metrics={"auc": 0.7563, "log loss": 0.1},
    lineage={"run": "5f1", "data": "commit 7", "code": ""},
)  # fmt: skip
AT = "shop-east-late"


def target_at(**options: Any) -> SagemakerTarget:
    given = {"role": ROLE, "requests_per_minute": 600, "registry": False, **options}
    return SagemakerTarget(SagemakerOptions(**given), REGION, wait_s=1.0)


def rendered(target: SagemakerTarget | None = None, **changes: Any) -> list[Piece]:
    usual = {"image": IMAGE, "secrets": (), "env": {}, "services": (SERVICE,)}
    return deploying.rendered(target or target_at(), deployment(**{**usual, **changes}), {})


def deploy(target: SagemakerTarget, records: MemoryRecords, **changes: Any) -> list[Piece]:
    pieces = rendered(target, **changes)
    list(deploying.apply(target, deploying.plan(target, "east", pieces, records), pieces, records, lambda: 7))
    statuses = deploying.await_ready(target, pieces, 10)
    assert {each.state for each in statuses} == {"ready"}, statuses
    return pieces


def client(service: str = "sagemaker") -> Any:
    return boto3.client(service, region_name=REGION)


def variants(endpoint: str = AT) -> dict[str, tuple[float, str]]:
    """Return the weight and the version of an endpoint's variants."""
    config = client().describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    found = {}
    for each in client().describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]:
        model = client().describe_model(ModelName=each["ModelName"])
        version = model["PrimaryContainer"]["Environment"]["MAINSPRING_SAGEMAKER_ENDPOINT"]
        found[each["VariantName"]] = (each["InitialVariantWeight"], version)
    return found


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        ({}, {"image": ""}, "no image"),
        ({}, {"image": "docker.io/shop:1"}, "pulls no image.*push it to ECR"),
        ({}, {"image": IMAGE.replace(REGION, "us-east-1")}, "in us-east-1, and target 'east' in eu-west-1"),
        ({}, {"secrets": ("MAINSPRING_CATALOG",)}, "gives a container no secrets.*MAINSPRING_CATALOG"),
        ({}, {"env": {"API_TOKEN": "x"}}, "may be a secret"),
        ({}, {"port": 8081}, "asks port 8080"),
        ({}, {"replicas": (0, 2)}, r"one instance at least.*\[1, 2\]"),
        ({"requests_per_minute": 0}, {"replicas": (1, 2)}, "nothing says when"),
        ({}, {"services": (replace(SERVICE, deadline_ms=90_000.0),)}, "deadline of 90 s, and SageMaker waits 60 s"),
    ],
)
def test_what_it_cannot_have_is_refused(options: Any, changes: Any, told: str) -> None:
    with pytest.raises(Invalid, match=f"(?s){told}"):
        rendered(target_at(**options), **changes)


@pytest.mark.parametrize(
    "options",
    [{"role": "admin"}, {"instance": "m5.large"}, {"startup_s": 5}, {"subnets": ["subnet-1"]},
     {"tags": {"mainspring-digest": "x"}}, {"tags": {"AWS:x": "x"}}, {"tags": {"cost": "a;b"}},
     {"tags": {str(each): "" for each in range(49)}}, {"requests_per_minute": float("nan")},
     {"notify": "ops"}, {"kms": "alias/models", "instance": "ml.g5.xlarge"},
     {"kms": "alias/models", "instance": "ml.m6gd.large"}],
)  # fmt: skip
def test_options_are_checked(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).partition("_")[0]):
        SagemakerOptions(**{"role": ROLE, **options})


def test_a_place_and_a_network_are_needed() -> None:
    with pytest.raises(Invalid, match="no region"):
        rendered(replace(target_at(), region=""))
    with pytest.raises(Invalid, match="has no network"):
        rendered(replace(target_at(), follows=True))
    assert rendered(replace(target_at(isolated=False), follows=True))


def test_names_are_those_that_it_takes_and_differ() -> None:
    names = ["late", "late_2", "late.2", "l" * 60, "l" * 61, "late-2"]
    found = [name_of("shop", "east", each) for each in names]
    assert len(set(found)) == len(names)
    assert found[0] == "shop-east-late"
    services = tuple(replace(SERVICE, endpoint=each) for each in names)
    pieces = rendered(services=services, replicas=(1, 2))
    assert all(len(name) <= 63 and "_" not in name for piece in pieces for name in piece.name.split("/"))


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        ({}, {"env": {"NOTE": "x" * 1025}}, "PrimaryContainer.Environment.NOTE .*1025 characters, and 1024 are the"),
        ({}, {"env": {f"NOTE_{each}": "x" for each in range(100)}}, "101 entries, and 100 are the most"),
        ({}, {"image": IMAGE.replace("shop", "s" * 250)}, "PrimaryContainer.Image .*255 are the most"),
        ({"subnets": [f"subnet-{each}" for each in range(17)], "security_groups": ["sg-1"]}, {}, "VpcConfig.Subnets"),
        ({"subnets": ["sub net"], "security_groups": ["sg-1"]}, {}, "'sub net' is not of the form"),
        ({"kms": "a b"}, {}, "KmsKeyId"),
        ({"registry": True}, {"services": (replace(SERVICE, arms=tuple((str(n), 1 / 11) for n in range(11))),)},
         "ProductionVariants .*11 entries"),
    ],
)  # fmt: skip
def test_what_is_beyond_a_limit_is_told_before_anything_is_made(
    sagemaker: SagemakerServer, options: Any, changes: Any, told: str
) -> None:
    target = target_at(**options)
    sagemaker.calls.clear()
    problems = deploying.plan(target, "east", rendered(target, **changes), MemoryRecords()).problems
    assert re.search(told, "\n".join(problems)), problems
    assert sagemaker.calls == []


def lacks_image(_: SagemakerServer) -> None:
    client("ecr").batch_delete_image(repositoryName="shop", imageIds=[{"imageTag": "1"}])


def lacks_quota(server: SagemakerServer) -> None:
    server.quotas = {"a": 1.0, "b": 1.0, "ml.m5.large for endpoint usage": 4.0, "ml.m5.large for training": 1.0}
    other = {"role": ROLE, "requests_per_minute": 0}
    made = SagemakerTarget(SagemakerOptions(**other), REGION, wait_s=1.0)
    deploy(made, MemoryRecords(), project="other", replicas=(2, 2))


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        (lacks_image, "image .*/shop:1 is not in eu-west-1.*push it"),
        (lacks_quota, "quota of ml.m5.large for endpoints is 4, 2 are in use, and up to 3 are needed"),
    ],
)
def test_what_is_lacking_is_told_before_anything_is_made(
    sagemaker: SagemakerServer, lacks: Callable[[SagemakerServer], None], told: str
) -> None:
    lacks(sagemaker)
    sagemaker.calls.clear()
    planned = deploying.plan(target_at(), "east", rendered(replicas=(1, 3)), MemoryRecords())
    with pytest.raises(Invalid, match=told):
        raise Invalid("\n".join(planned.problems))
    assert sagemaker.calls == []
    sagemaker.denied |= {"DescribeImages", "ListServiceQuotas"}
    assert deploying.plan(target_at(), "east", rendered(replicas=(1, 3)), MemoryRecords()).problems == ()
    sagemaker.denied.remove("ListServiceQuotas")
    sagemaker.broken.add("ListServiceQuotas")
    assert target_at().problems(rendered(replicas=(1, 3))) == [], "SageMaker itself knows its quotas"


def test_a_rollout_is_variants_and_its_end_takes_the_candidate_out(sagemaker: SagemakerServer) -> None:
    records, target = MemoryRecords(), target_at()
    deploy(target, records, replicas=(2, 8))
    assert variants() == {"champion": (1.0, "late:3")}
    rolling = replace(SERVICE, arms=(("3", 0.75), ("4", 0.25)))
    deploy(target, records, replicas=(2, 8), services=(rolling,))
    assert variants() == {"champion": (0.75, "late:3"), "candidate-1": (0.25, "late:4")}
    scaled = client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert {each["ResourceId"].rpartition("/")[2]: (each["MinCapacity"], each["MaxCapacity"])
            for each in scaled["ScalableTargets"]} == {"champion": (2, 6), "candidate-1": (1, 2)}  # fmt: skip
    deploy(target, records, replicas=(2, 8), services=(replace(SERVICE, version="late:4", bundle="cd" * 32),))
    assert variants() == {"champion": (1.0, "late:4")}
    assert [each["EndpointName"] for each in client().list_endpoints()["Endpoints"]] == [AT]
    assert len(client().list_endpoint_configs()["EndpointConfigs"]) == len(client().list_models()["Models"]) == 1
    assert sagemaker.calls.count("CreateEndpoint") == 1, "it is updated, not made again"


def count(endpoint: str = AT) -> int:
    found = client().describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
    return sum(each["CurrentInstanceCount"] for each in found)


def test_counts_are_scalings_where_there_is_some_else_the_targets(sagemaker: SagemakerServer) -> None:
    records, target = MemoryRecords(), target_at()
    deploy(target, records, replicas=(1, 8))
    [running] = sagemaker.backend.endpoints[AT].production_variants
    running["CurrentInstanceCount"] = 5
    deploy(target, records, replicas=(1, 8), env={"NOTE": "2"})
    assert count() == 5
    deploy(target, records, replicas=(3, 3))
    assert count() == 3
    sagemaker.quotas = {"ml.m5.large for endpoint usage": 5.0}
    pieces = rendered(target, replicas=(3, 3), env={"NOTE": "4"})
    [problem] = deploying.plan(target, "east", pieces, records).problems
    assert "is 5, 3 are in use, and up to 3" in problem, "the new instances start beside the old ones"
    assert target.problems(rendered(target, replicas=(3, 3))) == []


def test_a_scaled_endpoint_moves_to_other_instances_and_stays_scaled(sagemaker: SagemakerServer) -> None:
    """An endpoint is not updated to another type of instances while it is scaled."""
    records = MemoryRecords()
    deploy(target_at(), records, replicas=(1, 8))
    moved = target_at(instance="ml.c5.xlarge")
    pieces = deploy(moved, records, replicas=(1, 8))
    config = client().describe_endpoint(EndpointName=AT)["EndpointConfigName"]
    [variant] = client().describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    assert variant["InstanceType"] == "ml.c5.xlarge"
    assert deploying.plan(moved, "east", pieces, records).nothing, "it is scaled as it was"
    sagemaker.fails[AT] = "no such instances"
    pieces = rendered(target_at(instance="ml.c5.2xlarge"), replicas=(1, 8))
    planned = deploying.plan(moved, "east", pieces, records)
    with pytest.raises(Invalid, match="took its update back"):
        list(deploying.apply(moved, planned, pieces, records, lambda: 7))
    [scaled] = [each.id for each in pieces if each.kind == "Scaling"]
    assert moved.look([scaled])[0].state == "ready", "what serves on is scaled on"


def alarms() -> list[BurnAlarm]:
    monitor = ms.Monitor(
        "late", objectives=[ms.objectives.availability(0.999), ms.objectives.latency(0.99, within="250ms")]
    )
    return objective_alarms([monitor, ms.Monitor("other", objectives=[ms.objectives.availability(0.9)])])


def test_objectives_are_alarms_of_each_variant_that_follow_them_and_go_with_them(sagemaker: SagemakerServer) -> None:
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:ops"
    records, target = MemoryRecords(), replace(target_at(notify=topic), alarms=alarms)
    rollout = (replace(SERVICE, arms=(("3", 0.75), ("4", 0.25))),)
    deploy(target, records, services=rollout, replicas=(1, 1))
    watch = client("cloudwatch")
    windows = {each["AlarmName"]: each for each in watch.describe_alarms(AlarmTypes=["MetricAlarm"])["MetricAlarms"]}
    burns = {
        each["AlarmName"]: each for each in watch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    }
    assert len(windows) == 2 * len(burns) == 2 * 2 * 2 * 2  # windows, rules, objectives, variants
    for name, burn in burns.items():
        parts = re.findall(r'ALARM\("([^"]+)"\)', burn["AlarmRule"])
        assert len(parts) == 2
        assert all(each in windows and each.startswith(name) for each in parts)
        assert burn["AlarmActions"] == burn["OKActions"] == [topic]
    slow = windows[f"{AT}-champion-slow-250ms-3600s-page-over-300s"]
    assert (slow["MetricName"], slow["ExtendedStatistic"], slow["Threshold"], slow["Period"]) == (
        "ModelLatency", "p85.6", 250_000.0, 300,
    )  # fmt: skip
    failing = windows[f"{AT}-candidate-1-failing-3600s-page-over-3600s"]
    assert failing["Threshold"] == pytest.approx(0.0144)
    share, *sums = failing["Metrics"]
    assert share["Expression"] == "IF(bad >= 5, bad / total, 0)"
    assert {each["MetricStat"]["Metric"]["MetricName"] for each in sums} == {"Invocation5XXErrors", "Invocations"}
    pieces = deploy(target, records, replicas=(1, 1))
    left = watch.describe_alarms(AlarmTypes=["MetricAlarm"])["MetricAlarms"]
    assert {each["AlarmName"] for each in left} == {name for name in windows if "champion" in name}
    other = replace(target_at(notify=f"{topic}-2"), alarms=alarms)
    deploy(other, records, replicas=(1, 1))
    assert deploying.plan(target, "east", pieces, records).changes[-1].action == "change", "of the topic"
    watch.put_metric_alarm(AlarmName="theirs", Namespace="a", MetricName="b", ComparisonOperator="GreaterThanThreshold",
                           EvaluationPeriods=1, Period=60, Statistic="Sum", Threshold=1.0)  # fmt: skip
    with pytest.raises(Conflict, match="no deployment made it"):
        target.make(Piece(id="WindowAlarm/theirs", content=b"{}"))
    list(deploying.destroy(target, "east", records, lambda: 7))
    assert [each["AlarmName"] for each in watch.describe_alarms()["MetricAlarms"]] == ["theirs"]


def test_a_quota_that_no_account_has_of_its_own_is_the_usual_one(sagemaker: SagemakerServer) -> None:
    sagemaker.quotas = {"ml.m5.large for endpoint usage": 4.0}
    sagemaker.usual = {"ml.m5.large for endpoint usage": 0.0, "ml.g5.xlarge for endpoint usage": 0.0}
    target = target_at(instance="ml.g5.xlarge")
    [problem] = target.problems(rendered(target))
    assert "quota of ml.g5.xlarge for endpoints is 0, 0 are in use, and up to 1" in problem
    assert target_at().problems(rendered()) == []


def test_an_image_that_follows_the_catalog_follows_its_rollouts() -> None:
    target = replace(target_at(isolated=False), follows=True)
    pieces = rendered(target, services=(replace(SERVICE, arms=(("3", 0.75), ("4", 0.25))),), replicas=(1, 1))
    [config] = [json.loads(each.content) for each in pieces if each.kind == "EndpointConfig"]
    [model] = [json.loads(each.content) for each in pieces if each.kind == "Model"]
    assert [each["VariantName"] for each in config["ProductionVariants"]] == ["champion"]
    assert model["PrimaryContainer"]["Environment"] == {"MAINSPRING_SAGEMAKER_ENDPOINT": "late"}


def test_an_endpoint_that_cannot_start_says_why_and_is_made_again(sagemaker: SagemakerServer) -> None:
    records, target = MemoryRecords(), target_at()
    why = "The primary container did not pass the ping health check."
    sagemaker.fails[AT] = why
    pieces = rendered(target)
    list(deploying.apply(target, deploying.plan(target, "east", pieces, records), pieces, records, lambda: 7))
    [failed] = [each for each in deploying.await_ready(target, pieces, 10) if each.state == "failed"]
    assert (failed.piece, failed.why) == (f"Endpoint/{AT}", why)
    sagemaker.fails[AT] = why
    pieces = rendered(target, replicas=(1, 2))
    with pytest.raises(Invalid, match=f"is Failed: {why}"):
        list(deploying.apply(target, deploying.plan(target, "east", pieces, records), pieces, records, lambda: 7))
    fixed = deploy(target, records, env={"NOTE": "2"})
    assert {each.piece for each in records.made("east")} == {each.id for each in fixed}


def test_an_update_that_is_taken_back_leaves_what_serves(sagemaker: SagemakerServer) -> None:
    records, target = MemoryRecords(), target_at()
    deploy(target, records)
    sagemaker.fails[AT] = "CloudWatch alarm"
    pieces = rendered(target, env={"NOTE": "2"})
    planned = deploying.plan(target, "east", pieces, records)
    with pytest.raises(Invalid, match="took its update back: CloudWatch alarm"):
        list(deploying.apply(target, planned, pieces, records, lambda: 7))
    assert client().describe_endpoint(EndpointName=AT)["EndpointStatus"] == "InService"
    assert variants() == {"champion": (1.0, "late:3")}
    states = {each.piece: each.state for each in deploying.status(target, "east", records)}
    assert states[f"Endpoint/{AT}"] == "half made"
    deploy(target, records, env={"NOTE": "2"})


def test_what_others_change_is_seen_and_restored_and_theirs_is_left(sagemaker: SagemakerServer) -> None:
    records, target = MemoryRecords(), target_at()
    pieces = deploy(target, records, replicas=(1, 3))
    scaling = client("application-autoscaling")
    where = {"ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{AT}/variant/champion",
             "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip
    scaling.register_scalable_target(**where, MinCapacity=1, MaxCapacity=20)
    model = next(each for each in pieces if each.kind == "Model").name
    other = {"VariantName": "champion", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client().create_endpoint_config(EndpointConfigName="others", ProductionVariants=[other])
    client().update_endpoint(EndpointName=AT, EndpointConfigName="others")
    for _ in range(4):
        client().describe_endpoint(EndpointName=AT)
    changed = {each.piece for each in deploying.status(target, "east", records) if each.state == "changed"}
    assert changed == {f"Endpoint/{AT}", f"Scaling/{AT}/champion"}
    deploy(target, records, replicas=(1, 3))
    scaling.put_scaling_policy(**where, PolicyName="theirs", PolicyType="TargetTrackingScaling",
                               TargetTrackingScalingPolicyConfiguration={"TargetValue": 1.0})  # fmt: skip
    scaling.delete_scaling_policy(**where, PolicyName="mainspring-requests")
    with pytest.raises(Conflict, match="scaled by theirs"):
        deploy(target, records, replicas=(1, 4))
    client().delete_endpoint_config(EndpointConfigName="others")  # which was left
    list(deploying.destroy(target, "east", records, lambda: 9))
    [left] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert left["PolicyName"] == "theirs"


def test_versions_are_registered_with_metrics_and_lineage_and_stay_until_it_is_destroyed(
    sagemaker: SagemakerServer,
) -> None:
    records, target = MemoryRecords(), target_at(registry=True)
    deploy(target, records)
    newer = replace(SERVICE, version="late:4", bundle="cd" * 32)
    deploy(target, records, services=(newer,))
    listed = client().list_model_packages(ModelPackageGroupName=AT)["ModelPackageSummaryList"]
    packages = [client().describe_model_package(ModelPackageName=each["ModelPackageArn"]) for each in listed]
    found = {each["ModelPackageVersion"]: each["CustomerMetadataProperties"] for each in packages}
    assert found[1].pop("mainspring-digest") != found[2]["mainspring-digest"]
    assert found[1] == {
        "mainspring.endpoint": "late", "mainspring.version": "late:3", "mainspring.bundle": "ab" * 32,
        "lineage.run": "5f1", "lineage.data": "commit 7", "metric.auc": "0.7563", "metric.log loss": "0.1",
    }  # fmt: skip
    assert found[2]["mainspring.version"] == "late:4"
    assert {each["ModelApprovalStatus"] for each in packages} == {"Approved"}
    list(deploying.destroy(target, "east", records, lambda: 9))
    assert client().list_model_package_groups()["ModelPackageGroupSummaryList"] == []


def test_containers_are_private_and_nothing_is_captured(sagemaker: SagemakerServer) -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    options = {"kms": key, "subnets": ["subnet-1"], "security_groups": ["sg-1"], "tags": {"team": "risk"}}
    deploy(target_at(**options), MemoryRecords())
    sent: dict[str, Any] = dict(sagemaker.sent)
    model, config = sent["CreateModel"], sent["CreateEndpointConfig"]
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert model["ExecutionRoleArn"] == ROLE
    assert (config["KmsKeyId"], "DataCaptureConfig" in config) == (key, False)
    assert {"Key": "team", "Value": "risk"} in sent["CreateEndpoint"]["Tags"]
    assert "test" not in json.dumps([model, config]), "no credentials"


@deep
def test_a_killed_deployment_of_a_project_is_resumed_and_removed(depot: Depot, sagemaker: SagemakerServer) -> None:
    with (depot.root / "mainspring.toml").open("a") as file:
        file.write(
            f'\n[targets.east]\nkind = "sagemaker"\nregion = "{REGION}"\nimage = "{IMAGE}"\nrole = "{ROLE}"\n'
            "replicas = [1, 2]\nrequests_per_minute = 600\n"
        )
    planned = depot.run("deploy", "east", "--dry-run", "--json")
    assert planned.code == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["problems"] == []
    assert plan["cost"]["unknown"] == []
    assert plan["cost"]["most"] == 2 * plan["cost"]["least"] > 0
    victim: list[Any] = []

    def kill() -> None:
        if victim and sagemaker.calls[-1] == "CreateEndpointConfig":
            os.kill(victim[0].pid, signal.SIGKILL)

    sagemaker.done = kill
    victim.append(depot.start("deploy", "east", "--json"))
    _, told = victim[0].communicate(timeout=120)
    assert victim[0].returncode == -signal.SIGKILL, told
    sagemaker.done = lambda: None
    [listed] = [each for each in json.loads(depot.run("targets", "list", "--json").stdout) if each["name"] == "east"]
    assert listed["half"] == 1
    done = depot.run("deploy", "east", "--json")
    assert done.code == 0, done.stderr
    assert {each["state"] for each in json.loads(done.stdout)["pieces"]} == {"ready"}
    [group] = client().list_model_package_groups()["ModelPackageGroupSummaryList"]
    name = group["ModelPackageGroupName"]
    [listed] = client().list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]
    facts = client().describe_model_package(ModelPackageName=listed["ModelPackageArn"])["CustomerMetadataProperties"]
    assert len(facts["mainspring.bundle"]) == 64
    assert any(each.startswith("metric.") for each in facts)
    assert facts["lineage.run"]
    assert depot.run("targets", "destroy", "east", "--yes").code == 0
    assert client().list_endpoints()["Endpoints"] == client().list_models()["Models"] == []
