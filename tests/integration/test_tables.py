"""Tables of the command line in a narrow terminal: nothing that a person needs is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.terminal import in_a_terminal
from mainspring.core.time import HOUR
from mainspring.jobs.model import NewJob, Outcome, Status
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

ERROR = "NotFound: There is no feature view 'Nobody'. Fix: declare it in a module of the project, then run apply."


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Project]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    return folder, open_project(load_settings(folder, environment={}))


def test_an_error_of_a_job_is_whole(shop: tuple[Path, Project]) -> None:
    folder, project = shop
    jobs, now = project.jobs, 1_400_000_000_000_000
    (job,) = jobs.enqueue([NewJob(handler="materialise", argument=None)], now)
    (lease,) = jobs.claim("worker", ["materialise"], now, HOUR)
    jobs.end(lease, Outcome(Status.FAILED, error=ERROR), now)
    lines = in_a_terminal(80, folder, "jobs", "list")
    assert job.id in lines[1]
    assert max(map(len, lines)) <= 80
    assert ERROR in " ".join(" ".join(lines).split())


def test_a_version_is_whole_with_all_that_is_said_of_it(shop: tuple[Path, Project]) -> None:
    folder, project = shop
    tags = {"file": "model.onnx"}
    project.versions.register("demand-of-tomorrow-by-store", "d" * 64, "run", tags, 1_400_000_000_000_000)
    head, line, *_ = in_a_terminal(100, folder, "models", "list")
    assert head.split() == ["model", "version", "aliases", "bundle", "from", "registered"]
    cells = ["demand-of-tomorrow-by-store", "1", "d" * 12, "model.onnx", "2014-05-13T16:53:20Z"]
    assert line.split() == cells
    blocks = [each.split()[-1] for each in in_a_terminal(80, folder, "models", "list") if each]
    assert blocks == cells
