"""Every `Target`, and every store of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.deployed_pieces import CatalogRecords
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget
from mainspring.deploy.adapters.targets.memory import MemoryRecords, MemoryTarget
from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget
from mainspring.deploy.images.building import Content, Recipe
from mainspring.deploy.images.layers import Entry, Layer, layer
from mainspring.deploy.images.store import Store
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.conformance import (
    OthersConformance,
    RecordsConformance,
    TargetConformance,
    deployment,
)
from mainspring.deploy.targets.model import Deployment, Piece
from mainspring.deploy.targets.ports import Records
from mainspring.project.catalog import memory_catalog


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
