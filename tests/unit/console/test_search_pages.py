"""The page of a search: its history, importance and trials, of one that has ended and of one that goes on."""

import json
import re
import sys
from pathlib import Path

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project
from kit.console.registered import MODEL, registered, searched
from mainspring.console.app import create_app
from mainspring.console.search.picture import axis_of, judged_axis, over_trials, slices, ticks
from mainspring.console.search.trials import Found, Tried, found
from mainspring.operations.search.searching import RESULT, SEARCH
from mainspring.registry.runs import NAME
from unit.console.test_pages import Markup, text_of


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return registered(tmp_path_factory.mktemp("project"), versions=10)


@pytest.fixture(scope="module")
def ended(project: Project) -> str:
    return searched(project)


@pytest.fixture(scope="module")
def going(project: Project) -> str:
    return searched(project, ended=False, seed=9)


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def shown(client: Client, path: str, status: int = 200) -> str:
    answer = client.page(path)
    assert answer.status_code == status, answer.text
    Markup().feed(answer.text)
    return answer.text


def report(project: Project, run: str) -> dict:
    return json.loads(project.tracking.artefact(run, RESULT))


class TestEnded:
    def test_the_best_and_what_became_of_the_others(self, client: Client, project: Project, ended: str) -> None:
        best = report(project, ended)["best"]
        text = text_of(shown(client, f"/runs/{ended}/search"))
        assert f"{best['value']:.5f} auc" in text
        assert f"trial {best['number']}" in text
        assert "47 complete, 9 pruned, 4 failed" in text
        assert "9 pruned 4 failed" in text  # the legend of the history
        assert "Used by the training: with the best" in text

    def test_importance_is_that_of_the_search(self, client: Client, ended: str) -> None:
        page = shown(client, f"/runs/{ended}/search")
        bars = re.findall(r'<th scope="row">(\w+)</th><td><svg class="share".*?width="([\d.]+)" height.*?>(\d+)%', page)
        assert bars == [("rate", "71.0", "71"), ("leaves", "24.0", "24"), ("weight", "5.0", "5")]

    def test_a_dot_for_each_completed_trial_and_the_best_is_one(
        self, client: Client, project: Project, ended: str
    ) -> None:
        page = shown(client, f"/runs/{ended}/search")
        history = page[page.index('id="history"') : page.index('id="importance"')]
        told = report(project, ended)
        complete = [each for each in told["trials"] if each["state"] == "complete"]
        assert history.count('class="dot') == len(complete) + 1  # and the legend
        (best,) = re.findall(r'href="/runs/(\w+)" tabindex="-1"><path class="dot top"', history)
        assert best == told["best"]["run_id"]
        assert len(re.findall(r'class="tick \w+"', history)) == 2  # pruned, failed

    def test_every_trial_is_on_one_page_the_best_first(self, client: Client, project: Project, ended: str) -> None:
        told = report(project, ended)["trials"]
        for sort, expected in (
            ("best", sorted((each["value"] for each in told if each["value"] is not None), reverse=True)),
            ("number", [each["value"] for each in told if each["value"] is not None]),
        ):
            seen, begin = [], 0
            while begin is not None:
                answer = client.get(f"/api/runs/{ended}/search?sort={sort}&from={begin}").json()
                seen += answer["trials"]
                begin = answer["next"]
            assert sorted(each["number"] for each in seen) == list(range(60))
            assert [each["value"] for each in seen if each["value"] is not None] == expected
        page = shown(client, f"/runs/{ended}/search?from=25")
        assert "from the 26. on" in text_of(page)

    def test_reasons_are_text(self, client: Client, ended: str) -> None:
        page = shown(client, f"/runs/{ended}/search?sort=number")
        assert "&lt;b&gt;ZeroDivisionError&lt;/b&gt;" in page
        assert "<b>ZeroDivision" not in page

    def test_the_best_are_compared(self, client: Client, project: Project, ended: str) -> None:
        page = shown(client, f"/runs/{ended}/search")
        compared = re.search(r'href="(/runs/compare\?[^"]+)"', page)[1].replace("&amp;", "&")
        assert "10 runs compared" in text_of(shown(client, compared))
        assert compared.startswith(f"/runs/compare?run={report(project, ended)['best']['run_id']}&")

    def test_the_runs_page_leads_to_it(self, client: Client, project: Project, ended: str) -> None:
        assert f'href="/runs/{ended}/search"' in shown(client, f"/runs/{ended}")
        trial = report(project, ended)["trials"][0]["run_id"]
        assert f'href="/runs/{trial}/search"' not in shown(client, f"/runs/{trial}")

    def test_nothing_of_optuna_is_needed(self, client: Client, ended: str) -> None:
        before = {name for name in sys.modules if name.partition(".")[0] == "optuna"}
        shown(client, f"/runs/{ended}/search")
        assert {name for name in sys.modules if name.partition(".")[0] == "optuna"} == before


class TestGoingOn:
    def test_it_is_read_from_the_runs_of_its_trials(
        self, client: Client, project: Project, going: str, ended: str
    ) -> None:
        text = text_of(shown(client, f"/runs/{going}/search"))
        assert "The best so far" in text
        assert "47 complete, 9 pruned, 4 failed, 1 lost, 1 running" in text
        assert "Available when the search has ended." in text

    def test_both_ways_of_reading_agree(self, project: Project, ended: str) -> None:
        run = project.run_search.get([ended])[0]
        kept = found(project, run)
        content = project.tracking._runs[ended].artefacts.pop(RESULT)
        try:
            from_runs = found(project, run)
        finally:
            project.tracking._runs[ended].artefacts[RESULT] = content
        assert [
            (each.number, each.state, each.value, each.run_id, each.seconds, each.reason) for each in kept.trials
        ] == [
            (each.number, each.state, each.value, each.run_id, each.seconds, each.reason) for each in from_runs.trials
        ]
        assert [each.params["leaves"] for each in kept.trials] == [each.params["leaves"] for each in from_runs.trials]
        assert kept.importance == from_runs.importance
        assert (kept.metric, kept.maximize, kept.best.number) == (
            from_runs.metric,
            from_runs.maximize,
            from_runs.best.number,
        )

    def test_one_that_has_only_begun(self, client: Client, project: Project) -> None:
        run = project.tracking.start(MODEL, {SEARCH: "b" * 64, NAME: "just begun"}, NOW)
        text = text_of(shown(client, f"/runs/{run}/search"))
        assert "No trial has started." in text
        assert client.get(f"/api/runs/{run}/search").json()["best"] is None

    @pytest.mark.parametrize("content", [b"", b"[]", b'{"trials": 3}', b"\xff"])
    def test_a_file_that_is_no_report_is_passed_over(self, client: Client, project: Project, content: bytes) -> None:
        run = project.tracking.start(MODEL, {SEARCH: "b" * 64, NAME: "odd"}, NOW)
        project.tracking.log_artefact(run, RESULT, content)
        assert "No trial has started." in text_of(shown(client, f"/runs/{run}/search"))


def test_what_is_no_search_or_no_order_is_refused(client: Client, project: Project, ended: str) -> None:
    shown(client, f"/runs/{project.versions.get(MODEL, '3').run_id}/search", 404)
    shown(client, "/runs/0000/search", 404)
    shown(client, f"/runs/{ended}/search?sort=colour", 400)
    assert client.get(f"/api/runs/{ended}/search?from=-1").status_code == 400
    anonymous = Client(client.app)
    for path in (f"/runs/{ended}/search", f"/api/runs/{ended}/search"):
        assert anonymous.page(path).status_code == 401
        assert client("POST", path).status_code == 405


def test_fifteen_hundred_trials_are_a_short_page(client: Client, project: Project) -> None:
    run = searched(project, 1500, seed=5)
    page = shown(client, f"/runs/{run}/search")
    assert "the first 25 of 1,500" in text_of(page)
    assert len(page) < 150_000
    assert page.count('class="dot many"') == 4


# The pictures


def trial(number: int, value: float | None, state: str = "complete", **params: object) -> Tried:
    return Tried(number, state, value, params, f"run{number}", 1.0, "")


def search_of(*trials: Tried, maximize: bool = True) -> Found:
    return Found("auc", maximize, trials, {}, False)


@pytest.mark.parametrize("maximize", [True, False])
def test_the_best_so_far_only_gets_better(maximize: bool) -> None:
    values = [0.4, 0.5, 0.3, 0.6, 0.2, 0.55]
    plot = over_trials(search_of(*(trial(at, value) for at, value in enumerate(values)), maximize=maximize))
    assert plot is not None
    path = re.search(r'class="best" d="([^"]+)"', plot.svg)[1]
    heights = [float(each) for each in re.findall(r"(?:M[\d.]+ |V)([\d.]+)", path)]
    expected = sorted(heights, reverse=maximize)  # upwards is towards 0
    assert heights == expected
    assert len(heights) == 3


def test_the_best_is_the_first_of_equals_and_never_one_that_was_pruned() -> None:
    trials = search_of(trial(0, 0.9, "pruned"), trial(1, 0.5), trial(2, 0.5), trial(3, None, "failed"))
    assert trials.best is not None
    assert trials.best.number == 1
    assert search_of(trial(0, None, "failed")).best is None
    assert over_trials(search_of(trial(0, None, "failed"))) is None
    assert [(name, count) for name, count, _ in ticks(trials)] == [("pruned", 1), ("failed", 1)]


def test_what_is_far_worse_is_at_the_edge_and_what_is_better_never() -> None:
    good = [0.7 + at / 1000 for at in range(40)]
    axis, outside = judged_axis([*good, 0.1, 0.99], maximize=True)
    assert outside == 1
    assert axis.place(0.1) == 0.0
    assert 0 < axis.place(0.7) < axis.place(0.99) < 1
    axis, outside = judged_axis([*good, 0.1, 0.99], maximize=False)
    assert outside == 1
    assert axis.place(0.99) == 1.0
    assert axis.place(0.1) > 0
    axis, outside = judged_axis([0.5], maximize=True)
    assert (axis.place(0.5), outside) == (0.5, 0)


def test_an_axis_is_even_or_by_order_of_magnitude_or_of_names() -> None:
    assert axis_of([1, 2, 3]).place(2) == 0.5
    assert axis_of([0.001, 0.1, 0.01]).place(0.01) == pytest.approx(0.5)
    assert not axis_of([0.0, 100.0]).log
    names = axis_of([None, "balanced", True])
    assert names.ends == ("balanced", "none", "true")
    assert [names.place(value) for value in (None, True, "other")] == [0.5, pytest.approx(5 / 6), None]
    assert axis_of([3, 3]) is None
    assert axis_of([str(at) for at in range(50)]) is None
    assert axis_of([]) is None


def test_a_parameter_that_is_the_same_in_all_has_no_picture() -> None:
    trials = search_of(*(trial(at, 0.5 + at / 10, rate=at + 1.0, kind="a") for at in range(4)))
    assert [each.name for each in slices(trials, ["kind", "rate"])] == ["rate"]


def test_a_project_without_the_runs_store(tmp_path: Path) -> None:
    project = registered(tmp_path, versions=10)
    run = searched(project, 6)
    for part in report(project, run)["trials"]:
        del project.tracking._runs[part["run_id"]]
    page = shown(Client(create_app(project), project.key()), f"/runs/{run}/search")
    assert "the best" in text_of(page).lower()
