"""What a person misspells in a search of runs is said; what the code asks for may just not be logged yet."""

from __future__ import annotations

import pytest

from mainspring.operations.runs import find_runs
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.run_filters import Unreadable


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    project = open_project(load_settings(folder, environment={}))
    assert find_runs(project, filter_="auc > 0.5", order="auc", by_hand=True) == []  # there is nothing at all
    run = project.tracking.start("late", {}, 0)
    project.tracking.log(run, metrics=[("holdout.auc", 0.7, 0, 0)], params={"depth": "3"})
    project.tracking.finish(run, "FINISHED", 1)
    return project


@pytest.mark.parametrize(
    ("filter_", "order", "meant"),
    [
        ("houldout.auc > 0.5", "", "'holdout.auc'"),
        ("", "houldout.auc desc", "'holdout.auc'"),
        ("statsu = failed", "", "'status'"),
        ("depth > 9", "-detph", "'depth'"),
    ],
)
def test_a_slip_of_a_person(project: Project, filter_: str, order: str, meant: str) -> None:
    with pytest.raises(Unreadable, match="No run has a") as slip:
        find_runs(project, filter_=filter_, order=order, by_hand=True)
    assert f"did you mean {meant}?" in str(slip.value.fix)
    assert len(find_runs(project, filter_=filter_, order=order)) == (not filter_)


def test_known_names_that_find_nothing(project: Project) -> None:
    assert find_runs(project, filter_="holdout.auc > 0.9", order="-depth", by_hand=True) == []
    assert len(find_runs(project, filter_="holdout.auc > 0.5", order="-depth", by_hand=True)) == 1
