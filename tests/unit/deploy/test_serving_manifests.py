"""Objects of Kubernetes that serve: of the real schemas, hardened, reachable as declared, without a secret."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.prometheus import promtool
from kit.real_schemas import VERSIONS, check, pods, violations
from mainspring.core.errors import Invalid
from mainspring.deploy.manifests.kinds import KINDS, object_name
from mainspring.deploy.manifests.quantities import cores, mebibytes, quantity
from mainspring.deploy.manifests.serving import kserve, ray_clusters
from mainspring.deploy.manifests.serving.networks import egress
from mainspring.deploy.manifests.serving.objects import Around, objects
from mainspring.deploy.manifests.serving.options import KubernetesOptions
from mainspring.deploy.targets.conformance import deployment

EVERYTHING = KubernetesOptions(
    namespace="shop", hosts=["models.example.org"], gateway="infra/public/https", clients=["front"], autoscaling="keda",
    monitoring="monitoring", steps=True, secret_store="vault", claim="shop-state", node_selector={"pool": "models"},
    egress=["10.0.0.0/8:5432", "cache.data.svc:6379", "s3.example.org:443", "[2001:db8::/32]:443"],
)  # fmt: skip
ASLEEP = KubernetesOptions(autoscaling="keda", wake='sum(rate(envoy_requests_total{route="shop"}[1m]))')
DASHBOARD = json.dumps({"title": "Mainspring", "panels": [{"targets": [{"legendFormat": "{{endpoint}}"}]}]})
RULES = [{"name": "mainspring", "rules": [{"alert": "Down", "expr": "up == 0", "labels": {"severity": "page"}}]}]
AROUND = Around(
    ["db.data.svc:5432", "any:443"], 12, lambda: RULES, ("models.example.org", "own.example.org"), lambda: DASHBOARD
)
MANY: dict[str, Any] = {"replicas": (2, 6), "cpu": 1.5, "memory": 3 << 30, "gpus": 1}


def made(options: KubernetesOptions = EVERYTHING, **changes: Any) -> list[dict[str, Any]]:
    return objects(deployment(**{**MANY, **changes}), options, AROUND)


def of_ray(*run: str, **more: Any) -> list[dict[str, Any]]:
    options = ray_clusters.KuberayOptions(run=list(run), queue="gpus", egress=["db.data.svc:5432"], **more)
    return [each for each, _ in ray_clusters.objects(deployment(**MANY), options, AROUND)]


def of_kserve(mode: Any = "RawDeployment", **options: Any) -> list[dict[str, Any]]:
    found = kserve.objects(deployment(**MANY), kserve.KserveOptions(mode=mode, **options), AROUND)
    return [each for each, _ in found]


def everything() -> Iterator[list[dict[str, Any]]]:
    yield made()
    yield made(KubernetesOptions(autoscaling="prometheus"), worker=False)
    yield made(KubernetesOptions(), replicas=(1, 1), gpus=0)
    yield of_ray()
    yield of_ray("batch", "run", "nightly")
    yield of_kserve()
    yield of_kserve("Serverless", canary_percent=10)
    yield of_kserve(monitoring="monitoring")
    yield of_ray(monitoring="monitoring")
    yield made(ASLEEP, replicas=(0, 3))


def the(kind: str, found: list[dict[str, Any]], ending: str = "") -> dict[str, Any]:
    [one] = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return one


def all_pods(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from pods(found)
    for each in found:
        if each["kind"] == "InferenceService":
            runtime = the("ServingRuntime", found)["spec"]
            around = {name: value for name, value in each["spec"]["predictor"].items() if name != "model"}
            yield {**around, "containers": runtime["containers"], "volumes": runtime["volumes"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_of_the_real_schemas_and_a_misspelt_field_is_not(version: str) -> None:
    kinds = set()
    for found in everything():
        for each in found:
            check(each, version)
            assert each["apiVersion"] == KINDS[each["kind"]].api_version
            kinds.add(each["kind"])
    assert kinds == KINDS.keys()
    watched = of_kserve(monitoring="monitoring")
    for kind, wrong, found in (
        ("Deployment", "progressDeadlineSeconds", made()), ("ScaledObject", "triggers", made()),
        ("Service", "ports", made()), ("PodMonitor", "portNumber", watched), ("ConfigMap", "data", watched),
    ):  # fmt: skip
        ending = "gateway" if found is not watched else ""
        misspelt = json.loads(json.dumps(the(kind, found, ending)).replace(f'"{wrong}"', '"wrong"'))
        with pytest.raises(jsonschema_rs.ValidationError):
            check(misspelt, version)


def test_pods_pass_the_restricted_level_and_have_limits_probes_and_a_digest() -> None:
    seen = 0
    for found in everything():
        for pod in all_pods(found):
            seen += 1
            assert violations(pod) == []
            assert pod["enableServiceLinks"] is False
            asks = [each["metadata"]["name"] for each in found if each["kind"] == "RoleBinding"]
            assert pod["automountServiceAccountToken"] is (pod.get("serviceAccountName") in (None, *asks))
            for each in [*pod["initContainers"], *pod["containers"]]:
                assert each["securityContext"]["readOnlyRootFilesystem"] is True
                assert each["resources"]["limits"]["memory"] == each["resources"]["requests"]["memory"]
                assert each["resources"]["requests"]["cpu"]
                assert "@sha256:" in each["image"]
            mounted = {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]}
            assert mounted | {"keys"} == {each["name"] for each in pod["volumes"]}
            if pod["containers"][0]["name"] in ("gateway", "worker"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= pod["containers"][0].keys()
    assert seen > 10


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"), "capabilities"),
        (lambda pod: pod["initContainers"][0]["securityContext"].update(runAsUser=0), "may be root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda pod: pod["containers"][0]["securityContext"].update(privileged=True), "privileged"),
    ],
)
def test_the_check_of_the_restricted_level_sees_a_violation(change: Any, told: str) -> None:
    pod = next(pods(made()))
    change(pod)
    assert told in " ".join(violations(pod))


def test_values_of_secrets_are_references() -> None:
    for found in everything():
        for pod in all_pods(found):
            for variable in pod["containers"][0]["env"]:
                if variable["name"] == "MAINSPRING_CATALOG":
                    named = variable["valueFrom"]["secretKeyRef"]
                    assert named == {"name": "shop-east-environment", "key": "MAINSPRING_CATALOG"}
                    break
            else:
                pytest.fail("the variable is missing")
        assert not [each for each in found if each["kind"] == "Secret"]
    store = the("ExternalSecret", made())["spec"]
    assert store["target"]["name"] == "shop-east-environment"
    assert [each["secretKey"] for each in store["data"]] == ["MAINSPRING_CATALOG"]


def test_a_gateway_is_replaced_without_losing_a_request() -> None:
    spec = the("Deployment", made(), "gateway")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    waited = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    ready = container["readinessProbe"]
    assert ready["httpGet"]["path"] == "/v2/health/ready"
    asleep = int(waited.partition("sleep(")[2].rstrip(")"))
    assert asleep >= ready["periodSeconds"] * ready["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] >= asleep + 12 + 25  # the time to drain, and the supervisor's own
    assert the("PodDisruptionBudget", made())["spec"]["selector"] == spec["selector"]
    assert container["command"][3:] == [
        "up", "--contained", "--only", "gateway", "--only", "log", "--project", "/project", "--profile", "production",
    ]  # fmt: skip


def test_an_autoscaler_alone_says_how_many_gateways_there_are() -> None:
    fixed = made(replicas=(3, 3))
    assert the("Deployment", fixed, "gateway")["spec"]["replicas"] == 3
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & {each["kind"] for each in fixed}
    for options, kind in (
        (EVERYTHING, "ScaledObject"),
        (KubernetesOptions(), "HorizontalPodAutoscaler"),
        (KubernetesOptions(autoscaling="prometheus"), "HorizontalPodAutoscaler"),
    ):
        found = made(options)
        assert "replicas" not in the("Deployment", found, "gateway")["spec"]
        aim = the(kind, found)["spec"]["scaleTargetRef"]
        assert aim == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop-east-gateway"}
    triggers = the("ScaledObject", made())["spec"]["triggers"]
    assert [each["metadata"]["threshold"] for each in triggers] == ["1.05", "12.5"]  # 0.7 of 1.5, a quarter of 50 ms
    for options in (EVERYTHING, KubernetesOptions()):
        with pytest.raises(Invalid, match="has no gateway while nobody calls"):
            made(options, replicas=(0, 3))
    assert of_kserve("Serverless")[-1]["spec"]["predictor"]["minReplicas"] == 2


def test_what_is_before_the_gateway_starts_the_first_one_and_no_other() -> None:
    spec = the("ScaledObject", made(ASLEEP, replicas=(0, 3)))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 3)
    *_, wake = spec["triggers"]
    assert {each["metadata"]["activationThreshold"] for each in spec["triggers"]} == {"0"}
    assert (wake["metadata"]["query"], wake["metricType"]) == (ASLEEP.wake, "AverageValue")
    assert math.ceil(10**6 / float(wake["metadata"]["threshold"])) == 1, "a million requests a second ask for one"
    assert "replicas" not in the("Deployment", made(ASLEEP, replicas=(0, 3)), "gateway")["spec"]
    for wrong in ({"wake": "up"}, {"wake": "a\nb", "autoscaling": "keda"}):
        with pytest.raises(ValueError, match="wake is"):
            KubernetesOptions(**wrong)


def test_prometheus_computes_what_the_autoscaler_asks(tmp_path: Path) -> None:
    """Two gateways of ours compute 0.4 s a second each and let requests wait 20 ms, one of others is busier."""
    ours, others = ('namespace="shop",service="shop-east-gateway"', 'namespace="shop",service="other-gateway"')
    name, rates = "mainspring_stage_seconds", {"compute": (24, 60), "queue": (1.2, 60)}
    series = [
        {"series": f'{name}_{kind}{{stage="{stage}",pod="{pod}",{of}}}', "values": f"0+{rate * by:g}x10"}
        for of, by in ((ours, 1), (others, 7))
        for pod in ("a", "b")
        for stage, both in rates.items()
        for kind, rate in zip(("sum", "count"), both, strict=True)
    ]
    queries = [each["metadata"]["query"] for each in the("ScaledObject", made())["spec"]["triggers"]]
    wanted = [[{"labels": "{}", "value": value}] for value in (0.8, 20)]
    for there, told in ((series, wanted), ([], [[], []])):  # nothing is there while no gateway is
        asked = [
            {"expr": f"round({query}, 0.001)", "eval_time": "9m", "exp_samples": samples}
            for query, samples in zip(queries, told, strict=True)
        ]
        test = {"interval": "1m", "input_series": there, "promql_expr_test": asked}
        (tmp_path / "suite.yml").write_text(json.dumps({"rule_files": [], "tests": [test]}))
        assert "SUCCESS" in promtool("test", "rules", tmp_path / "suite.yml")


def test_knative_takes_the_pods_of_serverless_services() -> None:
    """Its validation refuses other fields: pkg/apis/serving/fieldmask.go of Knative Serving."""
    always = {"serviceAccountName", "containers", "volumes", "enableServiceLinks", "automountServiceAccountToken"}
    by_flag = {"initContainers", "securityContext", "nodeSelector", "tolerations"}  # the page names the flags
    of_container = {"name", "command", "env", "image", "workingDir", "ports", "resources", "securityContext",
                    "volumeMounts", "readinessProbe", "livenessProbe"}  # fmt: skip
    of_kserve_itself = {"labels", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
    seen = 0
    for pod in all_pods(of_kserve("Serverless")):
        assert pod.keys() - of_kserve_itself <= always | by_flag
        assert pod["containers"][0].keys() <= of_container
        assert pod["automountServiceAccountToken"] is False, "else it is refused"
        seen += 1
    assert seen == 2
    assert {each["terminationGracePeriodSeconds"] > 30 for each in all_pods(of_kserve())} == {True}
    with pytest.raises(ValueError, match="Serverless"):
        kserve.KserveOptions(canary_percent=10)


def test_nothing_is_reached_but_what_is_listed() -> None:
    found = made()
    deny = the("NetworkPolicy", found, "-deny")["spec"]
    assert (deny["ingress"], deny["egress"]) == ([], [])
    assert deny["podSelector"]["matchLabels"] == {"app.kubernetes.io/instance": "shop-east"}
    gateway = the("NetworkPolicy", found, "-gateway")["spec"]
    [inward] = gateway["ingress"]
    spaces = [each["namespaceSelector"]["matchLabels"] for each in inward["from"] if "namespaceSelector" in each]
    assert [each["kubernetes.io/metadata.name"] for each in spaces] == ["front", "infra", "monitoring"]
    assert inward["ports"] == [{"port": 8080, "protocol": "TCP"}]
    reached = {port["port"] for rule in gateway["egress"] for port in rule["ports"]}
    assert reached == {53, 443, 5432, 6379}
    [anywhere] = [rule for rule in gateway["egress"] if "to" not in rule]
    assert anywhere["ports"] == [{"port": 443, "protocol": "TCP"}]
    worker = the("NetworkPolicy", found, "-worker")["spec"]["egress"]
    assert {port["port"] for rule in worker for port in rule["ports"]} == reached | {6443}
    assert egress([]) == egress(["10.0.0.1:1"])[:1]


def test_rights_are_those_that_steps_need() -> None:
    role = the("Role", made())
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    jobs = {("jobs", verb) for verb in ("create", "delete", "get")}
    assert granted == {*jobs, ("pods", "list"), ("pods/log", "get")}
    assert not {"Role", "RoleBinding"} & {each["kind"] for each in made(KubernetesOptions())}


def test_a_route_and_the_scrape_lead_to_the_service() -> None:
    found = made()
    service = the("Service", found, "gateway")
    [rule] = the("HTTPRoute", found)["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]
    assert {each["path"]["value"] for each in rule["matches"]} == {"/v1", "/v2"}
    monitor = the("ServiceMonitor", found)["spec"]
    names = {port["name"] for each in found if each["kind"] == "Service" for port in each["spec"]["ports"]}
    assert {each["port"] for each in monitor["endpoints"]} == names
    for each in found:
        if each["kind"] == "Service":
            assert monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    assert the("PrometheusRule", found)["spec"]["groups"] == RULES
    env = {each["name"]: each.get("value") for each in next(pods(found))["containers"][0]["env"]}
    assert {"$(POD_IP)", "models.example.org", "own.example.org", "shop-east-gateway.shop.svc"} <= {
        *env["MAINSPRING_ALLOWED_HOSTS"].split(",")
    }
    assert list(env).index("POD_IP") < list(env).index("MAINSPRING_ALLOWED_HOSTS")  # else it is not expanded


def test_who_is_scraped_is_let_in_and_has_rules_and_a_dashboard() -> None:
    for found, kind in (
        (made(), "ServiceMonitor"), (of_kserve(monitoring="monitoring"), "PodMonitor"),
        (of_ray(monitoring="monitoring"), "PodMonitor"),
    ):  # fmt: skip
        selector = the(kind, found)["spec"]["selector"]["matchLabels"].items()
        labels = [each["metadata"]["labels"] for each in found if each["kind"] in ("InferenceService", "RayCluster")]
        assert all(selector <= each.items() for each in labels)
        policies = [each["spec"]["ingress"] for each in found if each["kind"] == "NetworkPolicy"]
        assert sum('"monitoring"' in json.dumps(each) for each in policies) >= 1
        groups = the("PrometheusRule", found)["spec"]["groups"]
        if any(each["kind"] == "RayCluster" for each in found):
            assert [each["alert"] for each in groups[0]["rules"]] == ["MainspringRayNodeFailed", "MainspringRayMemory"]
            assert '{namespace="default"}' in groups[0]["rules"][0]["expr"]
        else:
            assert groups == RULES
            shown = the("ConfigMap", found)
            assert list(shown["data"].values()) == [DASHBOARD]
            assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    for found in (of_kserve(), of_ray(), made(KubernetesOptions())):
        assert not {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap"} & {each["kind"] for each in found}


def test_an_image_without_a_digest_is_refused() -> None:
    for image in ("", "shop", "shop:latest", "shop@sha256:abc"):
        with pytest.raises(Invalid, match="not named by digest"):
            made(image=image)


@given(st.text(max_size=90), st.text(max_size=90))
def test_names_are_those_of_objects_and_differ_where_the_names_do(first: str, second: str) -> None:
    one, other = object_name("shop", first), object_name("shop", second)
    for each in (one, other):
        assert len(each) <= 40
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", each)
    assert (one == other) == (first == second)


@given(st.integers(1, 10**7), st.integers(1, 2**45))
def test_quantities_are_canonical_and_not_less_than_the_amount(thousandths: int, nbytes: int) -> None:
    text = cores(thousandths / 1000)
    assert quantity(text) == pytest.approx(thousandths / 1000)
    assert not (text.endswith("m") and int(text[:-1]) % 1000 == 0)
    assert 0 <= quantity(mebibytes(nbytes)) - nbytes < 1 << 20


def test_quantities_are_read() -> None:
    assert [quantity(each) for each in ("2", "500m", "1Gi", "1.5k", "1e3", "0.5")] == [2, 0.5, 2**30, 1500, 1000, 0.5]
    with pytest.raises(ValueError, match="no quantity"):
        quantity("lots")
