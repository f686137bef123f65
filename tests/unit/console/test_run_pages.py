"""The pages of runs: what they say, what they refuse, and what they do with what people invent."""

import re
from urllib.parse import quote

import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from kit.console.trials import tried
from mainspring.console.app import create_app
from mainspring.operations.runs import find_runs
from mainspring.registry.runs import ERROR, NAME, NOTE
from mainspring.security.model import KeyScope
from unit.console.test_pages import Markup, text_of


@pytest.fixture(scope="module")
def project() -> Project:
    return tried()


@pytest.fixture(scope="module")
def client(project) -> Client:
    return Client(create_app(project), project.key())


@pytest.fixture(scope="module")
def ids(project) -> dict[str, str]:
    return {run.tags[NAME]: run.id for run in project.tracking.search(limit=1000) if NAME in run.tags}


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"(?: class="depth-\d")?><a href="/runs/[^"]+" title="[^"]+">([^<]+)</a>', page)


def shown(client: Client, path: str, status: int = 200) -> str:
    answer = client.page(path)
    assert answer.status_code == status, answer.text
    return answer.text


def test_a_failed_run_says_why_on_its_page_and_in_the_list() -> None:
    project = tried()
    run = project.tracking.start("late-arrival", {NAME: "broke"}, 1)
    project.tracking.log(run, tags={ERROR: "KeyError: '<b>speed</b>' (model.py:7)"})
    project.tracking.finish(run, "FAILED", 2)
    client = Client(create_app(project), project.key())
    page = shown(client, f"/runs/{run}")
    assert '<p class="problem" role="alert">KeyError: &#39;&lt;b&gt;speed&lt;/b&gt;&#39; (model.py:7)</p>' in page
    assert page.count("model.py:7") == 1  # not among its tags once more
    assert 'title="KeyError: ' in shown(client, "/runs?status=FAILED")
    assert client.get(f"/api/runs/{run}").json()["run"]["tags"][ERROR].startswith("KeyError")


PATHS = ("/runs", "/runs/compare", "/runs/{run}", "/runs/compare?run={run}", "/api/runs", "/api/runs/{run}")


@pytest.mark.parametrize("path", PATHS)
def test_nobody_sees_them_without_a_key(client, ids, path) -> None:
    answer = Client(client.app).get(path.format(run=ids["the sweep"]))
    assert answer.status_code == 401
    assert "sweep" not in answer.text


class TestTable:
    def test_the_newest_first_with_a_line_and_usual_columns(self, client) -> None:
        page = shown(client, "/runs")
        assert names(page)[:3] == ["&lt;b&gt;broken&lt;/b&gt;", "the sweep", "trial-55"]
        assert re.search(r"6[01] top-level runs", text_of(page))
        assert page.count('class="spark') > 15
        assert text_of(page).count("holdout.auc") >= 1

    def test_nested_runs_are_listed_below_their_opened_parent(self, client, ids) -> None:
        closed = shown(client, "/runs")
        assert "fold-1" not in closed
        assert "▸ 3 nested" in text_of(closed)
        [opener] = re.findall(r'class="opener" href="([^"]+)"', closed)
        page = shown(client, opener)
        assert names(page)[1:5] == ["the sweep", "fold-2", "fold-1", "fold-0"]
        assert page.count('class="depth-1"') == 3
        assert "the first 25" in text_of(page)
        assert re.search(r"6[01] top-level runs", text_of(page))
        [closer] = re.findall(r'class="opener" href="([^"]+)"', page)
        assert names(shown(client, closer)) == names(closed)
        [linked] = re.findall(r'As JSON: <a href="([^"]+)"', closed)
        as_json = client.get(linked.replace("&amp;", "&")).json()["runs"]
        assert [run["id"] for run in as_json][:25] == re.findall(r'<tr id="([^"]+)"', closed)
        assert client.page(f"/runs?open=../{ids['the sweep']}").status_code in (400, 422)

    def test_with_a_filter_or_in_the_order_of_a_metric_each_run_names_its_parent(self, client, ids) -> None:
        for query in ("q=fold", "model=late-arrival", "sort=metrics.holdout.auc+desc&status=FINISHED"):
            page = shown(client, f"/runs?{query}")
            assert "top-level" not in page
            assert "opener" not in page
        page = shown(client, "/runs?q=fold")
        assert names(page) == ["fold-2", "fold-1", "fold-0"]
        assert page.count(f'nested in <a href="/runs/{ids["the sweep"]}"') == 3
        assert re.search(r" 6[34] runs", text_of(shown(client, "/runs?sort=metrics.holdout.auc+desc")))

    def test_a_filter_an_order_and_the_pages_after(self, client) -> None:
        wanted = "metrics.holdout.auc > 0.7 and params.optimizer in (adam, sgd) status = finished trial"
        address, seen = f"/runs?q={quote(wanted)}&sort={quote('metrics.holdout.auc asc')}", []
        while address:
            page = shown(client, address)
            seen += names(page)
            following = re.search(r'class="next" href="([^"]+)"', page)
            address = following[1].replace("&amp;", "&") if following else ""
        assert len(seen) == len(set(seen)) > 26
        assert "read as metrics.holdout.auc > 0.7 and params.optimizer in" in text_of(page)
        (linked,) = re.findall(r'As JSON: <a href="([^"]+)"', shown(client, f"/runs?q={quote(wanted)}&status=FINISHED"))
        as_json = client.get(linked.replace("&amp;", "&")).json()["runs"]
        first = names(shown(client, f"/runs?q={quote(wanted)}&status=FINISHED"))  # a page of the table is shorter
        assert [run["name"] for run in as_json][: len(first)] == first
        every = client.get(f"/api/runs?limit=200&filter={quote(wanted)}&order={quote('metrics.holdout.auc')}").json()
        assert [run["name"] for run in every["runs"]] == seen
        assert sorted(run["metrics"]["holdout.auc"] for run in every["runs"]) == [
            run["metrics"]["holdout.auc"] for run in every["runs"]
        ]

    def test_a_name_without_its_kind_is_looked_up(self, client) -> None:
        page = shown(client, "/runs?q=depth+%3D+5")
        assert "read as params.depth = 5" in text_of(page)

    def test_a_filter_that_cannot_be_read_says_why_and_shows_the_runs(self, client) -> None:
        page = shown(client, "/runs?q=metrics.holdout.auc+%3E+high", 422)
        assert "'high' is not a number, but metrics.holdout.auc is one. It is at character 23." in text_of(page)
        assert len(names(page)) == 25
        assert 'value="metrics.holdout.auc &gt; high"' in page

    def test_a_name_that_no_run_has_is_a_note_where_it_leaves_nothing(self, client) -> None:
        page = shown(client, "/runs?q=houldout.auc+%3E+0.5")
        assert "No run has a metric, parameter or tag 'houldout.auc'. It is at character 1" in text_of(page)
        assert "did you mean 'holdout.auc'?" in text_of(page)
        assert "No run matches the filter." in page
        assert 'class="problem' not in shown(client, "/runs?q=holdout.auc+%3E+5")

    def test_a_name_that_no_run_has_is_a_note_where_it_orders_nothing(self, client) -> None:
        page = shown(client, "/runs?sort=-houldout.auc")
        assert "'houldout.auc'. It is at character 2 of the order." in text_of(page)
        assert len(names(page)) == 25
        for sort in ("-holdout.auc", "-holdout.auc&column=tags.seed", "-params.depth&q=status+%3D+failed"):
            assert 'class="problem' not in shown(client, f"/runs?sort={sort}")

    def test_the_api_refuses_a_name_that_no_run_has(self, client) -> None:
        for query in ("filter=houldout.auc+%3E+0.5", "order=houldout.auc+desc"):
            answer = client.get(f"/api/runs?{query}")
            assert answer.status_code == 400
            assert "'houldout.auc'. It is at character 1" in answer.text
            assert "did you mean 'holdout.auc'?" in answer.text
        assert client.get("/api/runs?filter=holdout.auc+%3E+5").json()["runs"] == []

    def test_columns_are_chosen_and_found_by_part_of_a_name(self, client) -> None:
        page = shown(client, "/runs?column=metrics.valid.loss&column=tags.seed")
        heads = re.findall(r'<a class="sort"[^>]*>([^<]+)</a>', page)
        assert [head.strip() for head in heads][-2:] == ["valid.loss", "seed"]
        page = shown(client, "/runs?find=cpu")
        assert 'value="metrics.&#34;system/cpu_percent&#34;"' in page

    def test_nothing_found_and_nothing_there(self, client) -> None:
        assert "No run matches the filter." in shown(client, "/runs?q=nobody")
        bare = populated()
        bare.tracking._runs.clear()
        assert "No runs yet" in shown(Client(create_app(bare), bare.key()), "/runs")

    @pytest.mark.parametrize(
        "query",
        ["after=x", "model=../x", "sort=attributes.colour", "column=attributes.colour", "sort=metrics.%00", "q=%00"],
    )
    def test_what_no_link_of_ours_asks_is_refused(self, client, query) -> None:
        assert client.page(f"/runs?{query}").status_code in (400, 422)


class TestRun:
    def test_everything_about_one(self, client, ids) -> None:
        page = shown(client, f"/runs/{ids['trial-52']}")
        text = text_of(page)
        assert "Run of late" in text
        assert "13 min 20 s" in text
        assert page.count('class="plot"') == 2
        assert "by step, 5 steps a point" in text
        assert "The run stored no files." in text

    def test_parts_machine_and_files(self, client, ids) -> None:
        text = text_of(shown(client, f"/runs/{ids['the sweep']}"))
        assert re.search(r"Nested runs 3 .*fold-2 Finished .*fold-1 .*fold-0", text)
        assert "plots/roc.png 48 kB" in re.sub(r"\s", " ", text.replace("\u202f", " "))
        assert "system/cpu_percent over time" in text
        assert "the sweep" in text_of(shown(client, f"/runs/{ids['fold-1']}"))

    def test_what_people_invent_is_text(self, client, ids) -> None:
        for path in (
            "/runs",
            f"/runs/{ids['<b>broken</b>']}",
            f"/runs/compare?run={ids['<b>broken</b>']}&run={ids['fold-0']}",
        ):
            page = shown(client, path)
            assert "<b>broken" not in page
            assert "<script>alert" not in page
            Markup().feed(page)

    def test_an_unknown_one(self, client) -> None:
        shown(client, "/runs/0000", 404)
        assert client.get("/api/runs/0000").status_code == 404

    def test_a_history_over_the_api(self, client, ids) -> None:
        found = client.get(f"/api/runs/{ids['trial-52']}/history?metric=train.loss&points=10").json()
        assert (found["first"], found["width"], len(found["buckets"])) == (0, 80, 10)
        assert all(each["low"] <= each["mean"] <= each["high"] and each["count"] == 80 for each in found["buckets"])


def test_a_run_is_renamed_and_noted_by_those_who_may(project, ids) -> None:
    run = project.tracking.start("late-arrival", {NAME: "first try"}, 1)
    client = Client(create_app(project), project.key())
    answer = client("POST", f"/runs/{run}", data={"name": " the <b>best</b> ", "note": "Look at\r\nthe outliers."})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run}")
    page = shown(client, f"/runs/{run}")
    assert '<h1 id="run">the &lt;b&gt;best&lt;/b&gt; ' in page
    assert '<p class="note">Look at\nthe outliers.</p>' in page
    event = project.audit.read(1)[0]
    assert (event.action, event.resource) == ("run.describe", f"run/{run}")
    changed = client("POST", f"/api/runs/{run}", json={"note": ""}).json()["run"]
    assert (changed["name"], changed["tags"][NOTE]) == ("the <b>best</b>", "")
    for asked in ({"name": ""}, {"name": "two\nlines"}, {"name": "x" * 251}, {"note": "x" * 5001}, {"nane": "x"}):
        assert client("POST", f"/api/runs/{run}", json=asked).status_code == 400
    assert client("POST", "/api/runs/nobody", json={"name": "x"}).status_code == 404
    viewer = Client(client.app, project.key(KeyScope.VIEW))
    assert viewer("POST", f"/runs/{run}", data={"name": "mine"}).status_code == 403
    assert "Name and note" not in shown(viewer, f"/runs/{run}")


def test_the_page_of_a_running_run_goes_on_by_itself(project, client, ids) -> None:
    run = project.tracking.start("late-arrival", {NAME: "under way"}, 1)
    assert shown(client, f"/runs/{run}").count('data-live="often"') == 2  # no curves yet
    assert "data-live" not in shown(client, f"/runs/{ids['trial-01']}")
    project.tracking.finish(run, "FINISHED", 2)
    assert "data-live" not in shown(client, f"/runs/{run}")


class TestComparison:
    def test_what_differs_first(self, client, project, ids) -> None:
        page = shown(client, f"/runs/compare?run={ids['trial-01']}&run={ids['trial-02']}&run={ids['trial-01']}")
        text = text_of(page)
        assert "2 runs compared" in text
        assert text.index("Differences") < text.index("Parallel coordinates") < text.index("Training curves")
        assert "batch_size" in text[text.index("the same in all") :]
        assert f"mainspring runs compare {ids['trial-01']} {ids['trial-02']}" in text
        code = re.search(r"ms.open\(\).runs\(where=\"(.+?)\"\)", text)
        assert [each.id for each in find_runs(project, filter_=code[1], order="name asc")] == [
            ids["trial-01"], ids["trial-02"],
        ]  # fmt: skip
        assert page.count('<a class="line"') == 2

    def test_a_half_of_an_axis_keeps_the_runs_that_cross_it(self, client, ids) -> None:
        chosen = "&".join(f"run={ids[f'trial-{number:02d}']}" for number in range(10))
        page = shown(client, f"/runs/compare?{chosen}")
        halves = [each.replace("&amp;", "&") for each in re.findall(r'class="half" href="([^"]+)"', page)]
        assert halves
        fewer = shown(client, halves[0])
        assert 1 < int(re.search(r"(\d+) runs compared", text_of(fewer))[1]) < 10

    def test_none_and_too_many(self, client, ids) -> None:
        assert "No runs are selected" in shown(client, "/runs/compare")
        every = "&".join(f"run={each}" for each in list(ids.values())[:51])
        assert "51 runs cannot be compared at once." in text_of(shown(client, f"/runs/compare?{every}", 400))
        shown(client, "/runs/compare?run=0000", 404)

    def test_a_metric_that_is_no_line(self, client, ids) -> None:
        text = text_of(shown(client, f"/runs/compare?run={ids['fold-0']}&run={ids['fold-1']}&metric=holdout.auc"))
        assert "holdout.auc: no run logged it more than once" in text
