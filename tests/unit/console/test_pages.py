import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, air, definitions, populated, traffic, windows
from kit.console.troubled import troubled
from mainspring.console.app import create_app
from mainspring.core.time import DAY, HOUR, WEEK, ManualClock
from mainspring.data.model import fresh
from mainspring.features.layout import slot
from mainspring.features.model import Mark
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.model import VersionQuality
from mainspring.project.catalog import memory_catalog
from mainspring.registry.model import AliasMove

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&{{7*7}}"


def text_of(page: str) -> str:
    """Return what a person reads: tags away, entities resolved, spaces single."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.split("<main", 1)[1])))


@pytest.fixture(scope="module")
def overview(app, project) -> str:
    return text_of(Client(app, project.key()).page("/").text)


def test_the_overview_says_what_is_live(overview) -> None:
    for said in (
        "late-arrival Live",
        "Version 2",
        "29 Jul 2013, 02:00 UTC 34 d 21 h ago",
        "Deployed by ana all gates passed",
        "auc 0.7377 0.6821 beats by 0.005",
        "brier 0.1612 0.1779 at most 0.2",
    ):
        assert said in overview


def test_the_overview_sums_up_traffic_latency_quality_drift_and_data(overview) -> None:
    total = sum(window.predictions for window in windows())
    for said in (
        f"Predictions {total:,}",
        "4.38 ms p99",
        "deadline 50 ms",
        "90% labelled",
        "3 of 12 columns",
        "3 in two windows running",
    ):
        assert said in overview


def test_only_what_is_checked_is_called_fresh_and_else_the_age_is_shown() -> None:
    project = populated()
    project.clock.set(NOW + 881 * DAY)
    app, key = create_app(project), project.key()
    page = text_of(Client(app, key).page("/").text)
    assert "Fresh" not in page
    assert re.search(r"departures\s+881 d( \d+ h)? old", page)
    for view in (traffic, air):  # materialised in time, of data that is old
        project.online.advance(slot(view), Mark(project.clock.now()))
    page = text_of(Client(app, key).page("/").text)
    assert "Fresh" not in page
    assert re.search(r"Data 881 d( \d+ h)? old (\w+ )?newest event", page)
    assert "Weather Materialised" in page
    checked = {name: replace(source, checks=[fresh("900d")]) for name, source in project.definitions.sources.items()}
    known = project.having(definitions=replace(project.definitions, sources=checked, models={}))
    page = text_of(Client(create_app(known), key).page("/").text)
    assert "departures Fresh" in page


def test_the_worst_columns_come_first(overview) -> None:
    table = overview.split("Feature drift vs training")[1]
    assert re.search(r"Schedule.month \S+ mean", table)
    places = [table.index(name) for name in ("Schedule.month", "Weather.humidity", "Weather.pressure", "Weather.wind")]
    assert places == sorted(places)


def test_behind_each_chart_stands_its_table(administrator) -> None:
    page = administrator.page("/").text
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        assert "<svg" in figure
        assert figure.count("<tr>") == 1 + len(windows())
        assert "<caption" in figure
    traffic = text_of("<main>" + figures[0])
    assert all(f"{window.predictions:,}" in traffic for window in windows())


def test_recent_predictions_lead_to_their_pages(administrator, project) -> None:
    links = re.findall(r'href="(/predictions/[^"]+)"', administrator.page("/").text)
    assert links == [f"/predictions/{each.id}" for each in project.predictions.recent(limit=12)]
    assert {administrator.page(link).status_code for link in links[:2]} == {200}


def test_a_prediction_shows_everything_that_made_it(administrator, project) -> None:
    one = project.predictions.recent(limit=30)[20]
    shown = text_of(administrator.page(f"/predictions/{one.id}").text)
    version = project.versions.get("late-arrival", "2")
    manifest = project.bundles.load(one.digest).manifest
    for said in (
        one.id,
        f"{one.outputs['probability']:.3f} probability",
        "Caller check-in desk",
        "Ground truth true",
        one.keys["flight"],
        "scheduled_departure 1 Sep 2013, 22:40:00.000 UTC",
        one.digest,
        version.run_id,
        manifest.dataset_commit,
        manifest.code_version,
        manifest.features_digest,
        f"{one.latency_us / 1000:.2f} ms",
        "OriginTraffic its values now departures_1h float32",
        "Schedule hour float32",
        "above everything in training",  # the month: trained on January to June
        "4 table versions in the dataset commit",
        "3 parameters of the run",
    ):
        assert said in shown


def test_a_prediction_of_a_replayed_clock_has_no_age_beside_dates_of_the_machines() -> None:
    project = populated()
    one = project.predictions.recent(limit=1)[0]
    past = msgspec.structs.replace(one, id="01replayed", at=one.at - 400 * DAY)
    project.predictions.append([past])
    client = Client(create_app(project), project.key())
    assert "ago" not in made_of(client, past.id)
    assert "replay" in made_of(client, past.id)
    assert "ago" in made_of(client, one.id)


def made_of(client: Client, prediction_id: str) -> str:
    page = client.page(f"/predictions/{prediction_id}").text
    return re.search(r"<dt>Made</dt><dd>(.*?)</dd>", page, re.DOTALL)[1]


def test_a_label_that_has_not_arrived_is_said_to_be_missing(administrator, project) -> None:
    newest = project.predictions.recent(limit=1)[0]
    shown = text_of(administrator.page(f"/predictions/{newest.id}").text)
    assert "arrivals.late : the label has not arrived yet" in shown


def test_a_label_that_is_known_only_later_is_not_shown_yet() -> None:
    project = populated()
    one = project.predictions.recent(limit=30)[20]
    assert isinstance(project.clock, ManualClock)
    project.clock.set(one.at + 1)
    shown = text_of(Client(create_app(project), project.key()).page(f"/predictions/{one.id}").text)
    assert "the label has not arrived yet" in shown


def test_what_is_gone_is_named_on_the_page() -> None:
    project = populated()
    one = project.predictions.recent(limit=1)[0]
    project.blobs.delete(one.digest)
    client = Client(create_app(project), project.key())
    shown = text_of(client.page(f"/predictions/{one.id}").text)
    assert "Part of the lineage is not readable The bundle" in shown
    assert one.keys["flight"] in shown
    assert client.page("/").status_code == 200


def test_an_unknown_prediction_is_404_for_a_person(administrator) -> None:
    answer = administrator.page("/predictions/01nobody")
    assert answer.status_code == 404
    assert "There is no prediction" in answer.text


class TestNothingYet:
    def shown(self, project: Project) -> str:
        answer = Client(create_app(project), project.key()).page("/")
        assert answer.status_code == 200
        return text_of(answer.text)

    def test_no_endpoint(self) -> None:
        assert "run mainspring apply" in self.shown(Project())

    def test_no_version(self) -> None:
        shown = self.shown(Project(definitions=definitions()))
        assert "late-arrival Not live" in shown
        assert "run mainspring train late-arrival , then mainspring promote late-arrival" in shown
        assert "No predictions yet" in shown
        assert "run mainspring predict late-arrival" in shown

    def test_no_data(self) -> None:
        shown = self.shown(Project(definitions=definitions()))
        assert "no rows: run mainspring ingest departures" in shown
        assert "never materialised: run mainspring materialize Weather" in shown

    def test_no_window(self) -> None:
        project = populated().having(monitors=CatalogMonitors(memory_catalog()))
        shown = self.shown(project)
        assert "No monitoring window yet" in shown
        assert "Recent predictions" in shown

    def test_no_labels_and_too_few_predictions(self) -> None:
        project = populated().having(monitors=CatalogMonitors(memory_catalog()))
        bare = [
            msgspec.structs.replace(window, labels=0, coverage=0.0, lag_p50_s=None, quality={}, columns=())
            for window in windows()
        ]
        project.monitors.save(bare)
        shown = self.shown(project)
        assert "No labels have arrived yet" in shown
        assert "No window contains enough predictions for a drift test yet" in shown
        assert "Feature drift vs training" not in shown

    def test_quality_is_that_of_the_version_that_predicted_not_of_the_live_one(self) -> None:
        project = populated()
        mixed = msgspec.structs.replace(
            windows()[-1],
            versions={"1": 5000, "2": 1120},
            by_version={
                "2": VersionQuality(labels=900, quality={"auc": 0.701}),
                "1": VersionQuality(labels=4600, quality={"auc": 0.655}),
            },
        )
        project.monitors.save([mixed])
        shown = self.shown(project)
        first, second = "0.655 held out 0.731 predicted by version 1, 4,600 labels", "0.701 held out 0.738"
        assert f"{first} {second} predicted by version 2, 900 labels" in shown
        page = Client(create_app(project), project.key()).page("/").text
        assert "version 1 held out 0.731" in page  # the chart's line

    def test_a_silent_window(self) -> None:
        project = populated()
        silent = msgspec.structs.replace(
            windows()[-1],
            start=NOW,
            end=NOW + WEEK,
            predictions=0,
            p50_ms=None,
            p99_ms=None,
            labels=0,
            coverage=0.0,
            lag_p50_s=None,
            quality={},
            columns=(),
            versions={},
        )
        project.monitors.save([silent])
        shown = self.shown(project)
        assert "0 in the current one" in shown
        assert "4.38 ms p99" in shown  # of the last window that had any


def test_late_data_is_marked_late() -> None:
    project = populated()
    project.online.clear(slot(air))
    project.online.advance(slot(air), Mark(NOW - 11 * 60_000_000, 0))
    shown = text_of(Client(create_app(project), project.key()).page("/").text)
    assert "1 late of 6" in shown
    assert re.search(r"Weather Late materialised through", shown)


def test_a_rollback_shows_who_put_it_live_again() -> None:
    project = populated()
    old = project.versions.get("late-arrival", "1")
    project.versions.set_alias(AliasMove("late-arrival", "champion", "2", "1", "bea", "rollback", NOW - HOUR))
    route = project.routes.current()["late-arrival"]
    arm = msgspec.structs.replace(route.arms[0], version="1", digest=old.digest)
    project.routes.publish([msgspec.structs.replace(route, arms=(arm,))])
    shown = text_of(Client(create_app(project), project.key()).page("/").text)
    assert "Version 1" in shown
    assert "Deployed by bea rollback" in shown
    assert "1 h ago" in shown


def marks_of(page: str) -> list[list[dict[str, object]]]:
    return [json.loads(html.unescape(data))["marks"] for data in re.findall(r'data-chart="([^"]*)"', page)]


def test_promotions_are_marked_by_the_clock_of_the_predictions() -> None:
    project = populated()
    at, today = NOW - 2 * WEEK, NOW + 700 * WEEK
    move = AliasMove("late-arrival", "champion", "2", "1", "bea", "rollback", today, domain_at=at)
    project.versions.set_alias(move)
    page = Client(create_app(project), project.key()).page("/").text
    charts = marks_of(page)
    assert len(charts) == 4
    for marks in charts:
        assert [mark["text"] for mark in marks] == ["version 2", "version 1"]
        assert marks[1]["x"] == at / 1e6
    assert page.count("<title>version 1</title>") == 4  # also where no script runs


def test_several_endpoints_can_be_chosen_from() -> None:
    project = populated()
    more = dict(project.definitions.endpoints) | definitions("another").endpoints
    both = replace(project.definitions, endpoints=more)
    project = Project(definitions=both, routes=project.routes, versions=project.versions, monitors=project.monitors)
    client = Client(create_app(project), project.key())
    first, second = client.page("/?endpoint=another").text, client.page("/?endpoint=late-arrival").text
    assert 'aria-current="page">another<' in first
    assert 'aria-current="page">late-arrival<' in second
    assert client.page("/?endpoint=nobody").status_code == 404


def test_all_endpoints_come_first_and_of_them_what_is_not_well() -> None:
    made = troubled().project
    more = dict(made.definitions.endpoints) | definitions("another").endpoints
    parts = {name: getattr(made, name) for name in ("routes", "versions", "monitors", "incidents")}
    project = Project(definitions=replace(made.definitions, endpoints=more), **parts)
    client = Client(create_app(project), project.key())
    page = client.page("/").text
    assert page.index(">late-arrival</a>") < page.index(">another</a>")
    text = text_of(page)
    assert "2 endpoints 1 with open incidents first" in text
    assert "Broken source weather quality late-arrival" in text
    assert "Not live" in text
    drifted = project.monitors.windows("late-arrival")[-1].drifted
    assert f"{len(drifted)} of " in text
    assert client.page("/endpoints").text.count("<tr>") == 3
    one = text_of(Client(create_app(made), made.key()).page("/").text)
    assert "2 open incidents" in one
    assert "Weather.wind is null in 41 %" in one


def test_whatever_people_call_things_is_only_text() -> None:
    """Names come from keys, requests, reasons, categories: none of them may become markup."""
    project = populated()
    project.versions.set_alias(AliasMove("late-arrival", "champion", "2", "1", HOSTILE, HOSTILE, NOW - HOUR))
    project.versions.set_alias(AliasMove("late-arrival", "champion", "1", "2", HOSTILE, HOSTILE, NOW - HOUR))
    strange = msgspec.structs.replace(
        project.predictions.recent(limit=1)[0],
        id="01strange",
        at=NOW - 1,
        keys={HOSTILE: HOSTILE},
        request={HOSTILE: [HOSTILE]},
        features={HOSTILE: HOSTILE, "Schedule.carrier": HOSTILE},
        statuses={HOSTILE: HOSTILE},
        outputs={HOSTILE: HOSTILE},
        principal=HOSTILE,
        version=HOSTILE,
    )
    project.predictions.append([strange])
    drifted = windows()[-1]
    columns = (msgspec.structs.replace(drifted.columns[0], column=HOSTILE, alert=True), *drifted.columns[1:])
    project.monitors.save(
        [msgspec.structs.replace(drifted, columns=columns, quality={HOSTILE: 0.5}, versions={HOSTILE: 3})]
    )
    client = Client(create_app(project), project.key(name=HOSTILE[:128]))
    for path in ("/", "/predictions/01strange"):
        answer = client.page(path)
        assert answer.status_code == 200
        assert "alert(1)" in answer.text
        assert "{{7*7}}" in answer.text
        found = Markup()
        found.feed(answer.text)
        assert "img" not in found.tags
        assert found.tags["script"] == [{"src", "defer"}] * 3
        assert [name for names in found.names for name in names if name.startswith("on")] == []


class Markup(HTMLParser):
    """The tags of a page with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, list[set[str]]] = {}

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.setdefault(tag, []).append({name for name, _ in attrs})

    @property
    def names(self) -> list[set[str]]:
        return [names for found in self.tags.values() for names in found]
