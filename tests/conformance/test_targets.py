"""Every `Target`, and every store of their records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import boto3
import pytest

from kit import cloud_targets
from kit.cloud_targets import AZURE, SIGN, VERTEX
from kit.cluster import TOKEN, Cluster
from kit.cluster_objects import APPLY, usual
from kit.sagemaker_server import IMAGE, REGION, ROLE, SagemakerServer
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.deployed_pieces import CatalogRecords
from mainspring.deploy.adapters.targets.clouds import CloudTarget, azure_target, vertex_target
from mainspring.deploy.adapters.targets.cluster import ClusterTarget
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.adapters.targets.helm import HelmOptions, HelmTarget
from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget
from mainspring.deploy.adapters.targets.kubernetes import kserve_target, kuberay_target, serving_target
from mainspring.deploy.adapters.targets.memory import MemoryRecords, MemoryTarget
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.adapters.targets.sagemaker import SagemakerTarget
from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget
from mainspring.deploy.adapters.targets.terraform import TerraformTarget
from mainspring.deploy.engines.kubernetes_api import Api
from mainspring.deploy.images.building import Content, Recipe
from mainspring.deploy.images.layers import Entry, Layer, layer
from mainspring.deploy.images.store import Store
from mainspring.deploy.manifests.clouds.azureml import AzureOptions
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.manifests.kinds import KINDS
from mainspring.deploy.manifests.serving.kserve import KserveOptions
from mainspring.deploy.manifests.serving.objects import Around
from mainspring.deploy.manifests.serving.options import KubernetesOptions
from mainspring.deploy.manifests.serving.ray_clusters import KuberayOptions
from mainspring.deploy.sagemaker.options import SagemakerOptions
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.conformance import (
    OthersConformance,
    RecordsConformance,
    TargetConformance,
    deployment,
)
from mainspring.deploy.targets.model import Deployment, Piece
from mainspring.deploy.targets.ports import Records
from mainspring.deploy.terraform.options import TerraformOptions
from mainspring.project.catalog import memory_catalog

EVERYTHING = KubernetesOptions(
    hosts=["models.example.org"],
    gateway="infra/public/https",
    clients=["shop-front"],
    autoscaling="keda",
    monitoring="monitoring",
    steps=True,
    secret_store="vault",
    egress=["10.0.0.0/8:5432", "cache.data.svc:6379", "s3.example.org:443"],
)


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


class TestMemoryTarget(TargetConformance, OthersConformance):
    @pytest.fixture
    def target(self) -> MemoryTarget:
        return MemoryTarget()

    @pytest.fixture
    def taken(self, target: MemoryTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            target.others.add(piece.id)

        return take


class TestCompose(TargetConformance, OthersConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> ComposeTarget:
        return ComposeTarget(ComposeOptions(), tmp_path)

    @pytest.fixture
    def taken(self, target: ComposeTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            target.path.mkdir(parents=True)
            (target.path / piece.name).write_text("services: {}\n")

        return take


class TestSystemd(TargetConformance, OthersConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> SystemdTarget:
        return SystemdTarget(SystemdOptions(), tmp_path)

    @pytest.fixture
    def taken(self, target: SystemdTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            target.path.mkdir(parents=True)
            (target.path / piece.name).write_text("[Unit]\n")

        return take


class TestTerraform(TargetConformance, OthersConformance):
    CHANGES: ClassVar[Mapping[str, object]] = {
        "region": "eu-central-1",
        "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop@sha256:" + "0f" * 32,
    }

    @pytest.fixture
    def target(self, tmp_path: Path) -> TerraformTarget:
        certificate = "arn:aws:acm:eu-central-1:123456789012:certificate/0f0f0f0f"
        options = TerraformOptions(certificate=certificate, hosts=["models.example.org"])
        return TerraformTarget(options, tmp_path, 10, (), lambda content: content[:64])

    @pytest.fixture
    def taken(self, target: TerraformTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            target.path.mkdir(parents=True)
            (target.path / piece.name).write_text("# mine\n")

        return take


class InFiles(TargetConformance, OthersConformance):
    """A target whose pieces are files."""

    @pytest.fixture
    def taken(self, target: CloudTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            place = target.path / piece.name
            place.parent.mkdir(parents=True)
            place.write_text("{}\n")

        return take


class TestVertex(InFiles):
    CHANGES: ClassVar[Mapping[str, object]] = {"secrets": (), "region": "europe-west4", "image": cloud_targets.IMAGE}

    @pytest.fixture
    def target(self, tmp_path: Path) -> CloudTarget:
        return vertex_target(read_options(VertexOptions, {**VERTEX, "terraform": True}, "east"), tmp_path, SIGN)


class TestAzure(InFiles):
    CHANGES: ClassVar[Mapping[str, object]] = {
        "secrets": (), "region": "westeurope", "image": "shopmodels.azurecr.io/shop@sha256:" + "0f" * 32
    }  # fmt: skip

    @pytest.fixture
    def target(self, tmp_path: Path) -> CloudTarget:
        options = {**AZURE, "identity": "", "terraform": True}
        return azure_target(read_options(AzureOptions, options, "east"), tmp_path, SIGN)


class TestSagemaker(TargetConformance, OthersConformance):
    CHANGES: ClassVar[Mapping[str, object]] = {
        "image": IMAGE, "secrets": (), "replicas": (1, 3), "services": deployment().services[:1],
    }  # fmt: skip

    @pytest.fixture
    def target(self, sagemaker: SagemakerServer) -> SagemakerTarget:
        sagemaker.looks = 1
        options = SagemakerOptions(role=ROLE, requests_per_minute=600)
        return SagemakerTarget(options, REGION, wait_s=1.0)

    @pytest.fixture
    def taken(self, target: SagemakerTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            request = json.loads(piece.content)
            boto3.client("sagemaker", region_name=REGION).create_model_package_group(**request)

        return take


class _Parts:
    """Parts of an image without a project."""

    def content(self, made: Deployment) -> Content:
        files = {f"{each.endpoint}.txt": each.version for each in made.services}
        bundles = tuple(each.bundle for each in made.services)
        return Content(files=files, bundles=bundles, env=dict(made.env), extras=())

    def bundles(self, digests: Sequence[str]) -> Mapping[str, Mapping[str, bytes]]:
        return {digest: {"model.onnx": digest.encode()} for digest in digests}

    def sign(self, content: bytes) -> bytes:
        return content[:64]


def _small(made: Recipe, bundles: Mapping[str, Mapping[str, bytes]], _store: Store) -> list[tuple[str, Layer]]:
    files = [Entry(path=f"srv/{name}", content=text.encode()) for name, text in made.files.items()]
    return [("project", layer([*files, *(Entry(path=f"srv/{each}") for each in bundles)], made.time_s))]


class TestImage(TargetConformance, OthersConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> ImageTarget:
        return ImageTarget(ImageOptions(), tmp_path, _Parts(), _small)

    @pytest.fixture
    def taken(self, target: ImageTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            (target.path / piece.name).mkdir(parents=True)
            (target.path / piece.name / "notes.txt").write_text("mine")

        return take

    def test_a_hosted_image_starts_as_services_start_it(self, tmp_path: Path) -> None:
        settings = [
            json.loads(ImageTarget(each, tmp_path, _Parts(), _small).render(deployment())[0].content)["settings"]
            for each in (ImageOptions(hosted=True), ImageOptions())
        ]
        assert [each.get("Cmd") for each in settings] == [["serve"], None]
        with pytest.raises(ValueError, match="the gateway alone"):
            ImageOptions(hosted=True, contents="project")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = Cluster(tmp_path)
    server.objects = usual()
    yield server
    server.close()


class InCluster(TargetConformance, OthersConformance):
    def inner(self) -> ClusterTarget:
        raise NotImplementedError

    @pytest.fixture
    def target(self, cluster: Cluster) -> ClusterTarget:
        return replace(self.inner(), connect=lambda: Api(cluster.url, None, TOKEN))

    @pytest.fixture
    def taken(self, cluster: Cluster) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            made = json.loads(piece.content)
            made["metadata"]["labels"] = {"app": "another"}
            path = KINDS[piece.kind].path("default", piece.name)
            Api(cluster.url, None, TOKEN).ask("PATCH", path, made, content_type=APPLY, fieldManager="kubectl")

        return take


class TestKubernetes(InCluster):
    def inner(self) -> ClusterTarget:
        return serving_target(EVERYTHING, Around())


class TestKserve(InCluster):
    def inner(self) -> ClusterTarget:
        return kserve_target(KserveOptions(), Around())


class TestKuberay(InCluster):
    def inner(self) -> ClusterTarget:
        return kuberay_target(KuberayOptions(), Around())


class TestHelm(TargetConformance, OthersConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> HelmTarget:
        return HelmTarget(HelmOptions(), Around(), tmp_path)

    @pytest.fixture
    def taken(self, target: HelmTarget) -> Callable[[Piece], None]:
        def take(piece: Piece) -> None:
            target.path.mkdir(parents=True)
            (target.path / piece.name).write_text("name: another\n")

        return take


class TestMemoryRecords(RecordsConformance):
    @pytest.fixture
    def records(self) -> MemoryRecords:
        return MemoryRecords()


class TestCatalogRecords(RecordsConformance):
    @pytest.fixture
    def records(self) -> Iterator[CatalogRecords]:
        engine = memory_catalog()
        yield CatalogRecords(engine)
        engine.dispose()


def test_a_plan_with_problems_is_not_applied(records: Records) -> None:
    target = MemoryTarget()
    target.lacks = ["The region's quota of GPUs is 0, and 2 are needed. Fix: ask for more.", "A second."]
    pieces = deploying.rendered(target, deployment(gpus=2), {})
    planned = deploying.plan(target, "east", pieces, records)
    assert planned.problems == tuple(target.lacks)
    with pytest.raises(Invalid, match=r"quota of GPUs is 0.*\(1 more\)"):
        list(deploying.apply(target, planned, pieces, records, lambda: 1))
    assert not target.there
    assert records.targets() == []


@pytest.mark.parametrize(
    "wrong",
    [{"project_folder": "relative"}, {"command": "/a b"}, {"user": "ro ot"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_a_unit_cannot_have_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SystemdOptions(**wrong)
