"""Every step runner, against the shared suite.

Ray and Spark run for real where they are installed: tests/integration/test_step_engines.py has environments for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from kit.cluster import TOKEN, Cluster
from kit.depth import deep
from mainspring.core.settings import Engines
from mainspring.jobs.pipelines.conformance import STEPS, StepRunnerConformance
from mainspring.jobs.pipelines.ports import StepRunner
from mainspring.jobs.ports import JobStore
from mainspring.operations.jobs.children import Children
from mainspring.operations.pipelines.running import ENGINES, LocalRunner
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "steps.py").write_text(STEPS)
    (folder / "mainspring.toml").write_text('name = "suite"\nmodules = ["steps"]\n[profiles.local]\n')
    return folder


@pytest.fixture(scope="module")
def project(folder: Path) -> Iterator[Project]:
    project = open_project(load_settings(folder, environment={}))
    yield project
    project.close()


@pytest.fixture(scope="module")
def store(project: Project) -> JobStore:
    return project.jobs


@pytest.fixture(scope="module")
def local(project: Project) -> Iterator[LocalRunner]:
    children = Children(project.settings)
    yield LocalRunner(project, children)
    children.close()


class TestLocalRunner(StepRunnerConformance):
    @pytest.fixture
    def runner(self, local: LocalRunner) -> LocalRunner:
        return local


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), forked=True)
    yield cluster
    cluster.close()


def engines_of(cluster: Cluster, folder: Path) -> Engines:
    config = folder / "kubeconfig"
    config.write_text(
        f"current-context: here\ncontexts: [{{name: here, context: {{cluster: one, user: ana}}}}]\n"
        f"clusters: [{{name: one, cluster: {{server: '{cluster.url}'}}}}]\n"
        f"users: [{{name: ana, user: {{token: {TOKEN}}}}}]\n"
    )
    return Engines(kubernetes_image="suite:1", kubernetes_folder=str(folder), kubernetes_config=str(config))


class TestKubernetesRunner(StepRunnerConformance):
    @pytest.fixture
    def runner(self, project: Project, cluster: Cluster, folder: Path) -> Iterator[StepRunner]:
        before = project.settings
        project.settings = replace(before, engines=engines_of(cluster, folder))
        yield ENGINES["kubernetes"](project)
        project.settings = before
        assert not cluster.pods, "Jobs are left"

    @deep
    def test_a_step_that_takes_too_long_is_ended(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        super().test_a_step_that_takes_too_long_is_ended(runner, store, folder)

    @deep
    def test_a_step_that_is_told_to_stop_has_ended(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        super().test_a_step_that_is_told_to_stop_has_ended(runner, store, folder)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
class TestRayRunner(StepRunnerConformance):
    timeout = 15

    @pytest.fixture
    def runner(self, project: Project) -> StepRunner:
        return ENGINES["ray"](project)


@pytest.mark.skipif(find_spec("pyspark") is None, reason="Spark is not installed")
class TestSparkRunner(StepRunnerConformance):
    timeout = 25

    @pytest.fixture
    def runner(self, project: Project) -> StepRunner:
        return ENGINES["spark"](project)
