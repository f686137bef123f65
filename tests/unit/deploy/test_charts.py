"""The chart, rendered by Helm itself: what is deployed without Helm, for the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mainspring.deploy.adapters.targets.helm import HelmOptions, HelmTarget
from mainspring.deploy.manifests.serving.objects import Around, objects
from mainspring.deploy.targets.conformance import deployment

helm = pytest.importorskip("helm_python")  # there are builds for some machines only

RULES = [
    {"name": "g", "rules": [{"alert": "Down", "expr": "up == 0", "annotations": {"told": '{{ $value }} of "all"\n'}}]}
]
AROUND = Around(["db.data.svc:5432"], 12, lambda: RULES)
OPTIONS: dict[str, Any] = {
    "hosts": ["models.example.org"], "gateway": "infra/public/https", "monitoring": "monitoring", "steps": True,
    "secret_store": "vault", "secret": "shop-secret", "keys": "shop-keys",
}  # fmt: skip
OTHER = "registry.example.org/other@sha256:" + "1a" * 32


def chart(folder: Path, options: HelmOptions, **changes: Any) -> Any:
    target = HelmTarget(options, AROUND, folder)
    for piece in target.render(deployment(**changes)):
        target.make(piece)
    return target.path


def rendered(path: Path, values: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    with helm.Chart.load(str(path)) as found:
        texts = found.render(values, name="shop", namespace=namespace)
    return [each for text in texts.values() for each in yaml.safe_load_all(text) if each is not None]


def named(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


@pytest.mark.parametrize("autoscaling", ["cpu", "keda", "prometheus"])
@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {}),
        ({"replicas": {"least": 3, "most": 9}}, {"replicas": (3, 9)}),
        ({"replicas": {"least": 3, "most": 3}}, {"replicas": (3, 3)}),
        ({"worker": {"enabled": False}}, {"worker": False}),
        ({"image": OTHER, "memory": "3Gi"}, {"image": OTHER, "memory": 3 << 30}),
    ],
)
def test_helm_renders_what_is_deployed_without_it(
    tmp_path: Path, autoscaling: Any, values: dict[str, Any], changes: dict[str, Any]
) -> None:
    options = HelmOptions(autoscaling=autoscaling, **OPTIONS)
    found = rendered(chart(tmp_path, options, replicas=(1, 4)), values, "there")
    there = HelmOptions(autoscaling=autoscaling, namespace="there", **OPTIONS)
    wanted = objects(deployment(**{"replicas": (1, 4), **changes}), there, AROUND)
    assert named(found) == named(wanted)
    assert len(found) == len(wanted)


def test_a_chart_with_a_query_of_demand_may_have_no_gateway(tmp_path: Path) -> None:
    given = {"autoscaling": "keda", "wake": 'sum(rate(requests{route="{{a}}"}[1m]))', **OPTIONS}
    found = rendered(chart(tmp_path, HelmOptions(**given)), {"replicas": {"least": 0, "most": 3}}, "there")
    assert named(found) == named(objects(deployment(replicas=(0, 3)), HelmOptions(namespace="there", **given), AROUND))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicas": {"least": 0, "most": 2}}, "/replicas/least"),
        ({"image": "shop:latest"}, "/image"),
        ({"memory": "lots"}, "/memory"),
        ({"replica": 2}, "replica"),
        ({"worker": {"enabled": "yes"}}, "/worker/enabled"),
    ],
)
def test_values_that_the_schema_forbids_are_refused_by_helm(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    path = chart(tmp_path, HelmOptions(**OPTIONS))
    with helm.Chart.load(str(path)) as found:
        found.validate_schema({})
        with pytest.raises(helm.HelmValuesError, match=told):
            found.validate_schema(values)


def test_helm_finds_no_fault_in_the_chart(tmp_path: Path) -> None:
    linted = helm.lint(str(chart(tmp_path, HelmOptions(**OPTIONS))))
    assert linted["errors"] == []
    assert [each["error"] for each in linted["messages"] if each["severity"] > 1] == []
    other = tmp_path / "other"
    assert (
        chart(other, HelmOptions(**OPTIONS), cpu=2.0).joinpath("Chart.yaml").read_text()
        != (tmp_path / "deploy/chart/Chart.yaml").read_text()
    )
