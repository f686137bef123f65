"""The pages of runs on MLflow's own store: they say what they say of the same runs in memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mlflow.entities import RunTag

from kit.console.client import Client
from kit.console.flights import Project
from kit.console.trials import tried
from mainspring.console.app import create_app
from mainspring.registry.adapters.mlflow_search import MlflowRunSearch
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.runs import NAME
from unit.console.test_pages import text_of


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder: Path = tmp_path_factory.mktemp("store")
    url = f"sqlite:///{folder / 'tracking.db'}"
    project = Project().having(tracking=MlflowTracking(url, folder / "runs"))
    object.__setattr__(project, "run_search", MlflowRunSearch(url))
    return tried(project)


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_the_table_says_the_same(client: Client) -> None:
    in_memory = tried(Project())
    other = Client(create_app(in_memory), in_memory.key())
    for query in (
        "",
        "?sort=metrics.holdout.auc+desc",
        "?q=optimizer+%3D+adam+status+%3D+failed",
        "?q=trial-1&sort=params.lr+asc",
    ):
        here, there = client.page(f"/runs{query}"), other.page(f"/runs{query}")
        assert here.status_code == there.status_code == 200
        assert _rows(here.text) == _rows(there.text)
        assert _rows(here.text)


def _rows(page: str) -> list[str]:
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    return [re.sub(r"\s+", " ", text_of(f"<main>{row}</main>")) for row in re.split("<tr[^>]*>", table)[1:]]


def test_a_name_and_a_note_are_those_of_mlflow(client: Client, project: Project) -> None:
    run = project.tracking.start("late-arrival", {NAME: "first"}, 1)
    assert (
        client("POST", f"/api/runs/{run}", json={"name": "renamed", "note": "odd"}).json()["run"]["name"] == "renamed"
    )
    store = project.tracking._store
    known = store.get_run(run)
    assert (known.info.run_name, known.data.tags["mlflow.note.content"]) == ("renamed", "odd")
    store.set_tag(run, RunTag("mlflow.note.content", "written there"))
    assert '<p class="note">written there</p>' in client.page(f"/runs/{run}").text
    assert client("POST", f"/runs/{run}", data={"name": "renamed"}).status_code == 303
    assert 'class="note"' not in client.page(f"/runs/{run}").text


def test_one_run_and_a_comparison(client: Client, project: Project) -> None:
    ids = {run.tags[NAME]: run.id for run in project.tracking.search(limit=1000) if NAME in run.tags}
    page = client.page(f"/runs/{ids['the sweep']}")
    assert page.status_code == 200
    assert "plots/roc.png" in page.text
    assert all(f"fold-{number}" in page.text for number in range(3))
    assert client.page(f"/runs/{ids['trial-52']}").text.count('class="plot"') == 2
    page = client.page(f"/runs/compare?run={ids['trial-01']}&run={ids['trial-02']}")
    assert page.status_code == 200
    assert page.text.count('<a class="line"') == 2
