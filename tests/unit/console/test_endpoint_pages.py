"""One endpoint with its tabs: each has an address, a time, and the numbers of that time."""

import html
import json
import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit.console.client import Client
from kit.console.flights import NOW, Project, populated, schedule, windows
from kit.console.rolled import rolled
from kit.console.troubled import troubled
from kit.waiting import wait_until
from mainspring.console.app import create_app
from mainspring.core.time import DAY, HOUR, MINUTE, WEEK, format_instant
from mainspring.monitoring.quality.table import Key
from mainspring.monitoring.service.readings import GATEWAY, State
from mainspring.monitoring.service.samples import Sample
from mainspring.monitoring.service.skew import subject
from mainspring.security.quota import Quota, period
from mainspring.serving.model import Restriction
from mainspring.serving.plane.counts import FILE, Counts
from mainspring.serving.plane.metering import name_of
from mainspring.serving.plane.slots import folder
from mainspring.stats.quality_sums import PLACE, Rows, Sums, scores_summed, summed
from unit.console.test_pages import text_of

ENDPOINT = "late-arrival"
HERE = f"/endpoints/{ENDPOINT}"
TABS = ("", "/performance", "/fairness", "/drift", "/latency", "/capacity", "/scaling", "/callers", "/rollout")


@pytest.fixture(scope="module")
def measured() -> Project:
    """A project whose newest predictions were counted by the monitor, with labels."""
    project = populated(monitor=ms.Monitor(ENDPOINT, fairness=["Schedule.carrier", "origin"]))
    project.predictions.compact()
    project.monitor.run(ENDPOINT)
    project.quality_updates.run(ENDPOINT)
    return project


@pytest.fixture(scope="module")
def client(measured) -> Client:
    return Client(create_app(measured), measured.key())


def charts_of(page: str) -> list[dict]:
    return [json.loads(html.unescape(data)) for data in re.findall(r'data-chart="([^"]*)"', page)]


def test_the_first_page_is_the_page_of_the_only_endpoint(administrator) -> None:
    first = text_of(administrator.page("/").text)
    assert text_of(administrator.page(HERE).text) == first
    assert text_of(administrator.page(f"/?endpoint={ENDPOINT}").text) == first


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_has_an_address_and_keeps_the_time(administrator, tab) -> None:
    page = administrator.page(f"{HERE}{tab}?range=30d").text
    here = re.findall(r'href="([^"]*)" aria-current="page"', page.split("<main", 1)[1])
    assert here == [f"{HERE}{tab}?range=30d"]
    for other in TABS:
        assert f'href="{HERE}{other}?range=30d"' in page
    assert administrator.page(f"/endpoints/nobody{tab}").status_code == 404


def test_a_time_shows_its_windows_and_no_other(administrator) -> None:
    made = windows()
    since, until = made[3].start, made[5].end
    page = administrator.page(f"{HERE}?since={format_instant(since)}&until={format_instant(until)}").text
    assert {len(chart["x"]) for chart in charts_of(page)} == {3}
    assert f"Predictions {sum(window.predictions for window in made[3:6]):,}" in text_of(page)
    inside = f"{HERE}/performance?since={format_instant(since + 1)}&until={format_instant(since + 2)}"
    assert {len(chart["x"]) for chart in charts_of(administrator.page(inside).text)} == {1}  # which overlaps
    assert {len(chart["x"]) for chart in charts_of(administrator.page(f"{HERE}?range=7d").text)} == {2}
    assert {len(chart["x"]) for chart in charts_of(administrator.page(f"{HERE}?range=all").text)} == {len(made)}
    long_ago = text_of(administrator.page(f"{HERE}/performance?until=2001-01-01").text)
    assert "No window in this time" in long_ago


@pytest.mark.parametrize(
    "query", ["range=8d", "since=yesterday", "since=2013-08-01T00:00:00", "since=2013-08-02&until=2013-08-01"]
)
def test_a_time_that_is_none_is_refused(administrator, query) -> None:
    for tab in TABS:
        assert administrator.page(f"{HERE}{tab}?{query}").status_code == 400


def test_quality_is_drawn_by_version_with_its_promotion_and_level(administrator) -> None:
    page = administrator.page(f"{HERE}/performance").text
    quality = charts_of(page)[0]
    made = windows()
    assert [line["name"] for line in quality["lines"]] == ["version 2", "version 1"]
    assert quality["lines"][0]["y"] == [None] * 4 + [window.quality["auc"] for window in made[4:]]
    assert quality["lines"][1]["y"] == [window.quality["auc"] for window in made[:4]] + [None] * 5
    assert [mark["text"] for mark in quality["marks"]] == ["version 2"]
    assert quality["level"]["y"] == 0.7377
    brier = charts_of(administrator.page(f"{HERE}/performance?metric=brier").text)[0]
    assert brier["lines"][1]["y"][:4] == [window.quality["brier"] for window in made[:4]]
    assert "metric=brier" in administrator.page(f"{HERE}/performance?metric=brier").text


def test_the_newest_window_is_shown_by_segment_with_intervals_and_calibration(client, measured) -> None:
    answer = client.get(f"/api{HERE}/quality?since={NOW - WEEK}").json()
    part, *segments = answer["windows"][-1]["measured"]
    assert (part["segment"], all(each["segment"] for each in segments)) == ("", True)
    page = client.page(f"{HERE}/performance").text
    text = text_of(page)
    figure = part["figures"]["auc"]
    assert figure["low"] < figure["value"] < figure["high"]
    assert f"{figure['value']:.4f} {figure['low']:.4f} – {figure['high']:.4f}" in text
    assert re.search(rf"all traffic 2 {part['labels']:,} ", text)
    assert f"{part['calibration'][0]['positives']:.3f}" in text
    assert 'aria-label="Share of positives over predicted probability"' in page
    assert len(answer["windows"]) == len(measured.monitors.windows(ENDPOINT, NOW - WEEK))


def test_all_columns_lead_to_their_distributions(administrator) -> None:
    page = administrator.page(f"{HERE}/drift?range=90d").text
    newest = windows()[-1]
    for each in newest.columns:
        assert f'href="{HERE}/drift?column={each.column}&amp;range=90d"' in page
    assert "3 in two windows" not in page
    assert re.search(r"Schedule.month \S+ mean", text_of(page))


def test_served_values_are_beside_the_stored_ones(client, measured) -> None:
    assert "Served and stored" not in client.page(f"{HERE}/drift").text
    now, counts = measured.wall.now(), {"match Weather.wind": 198.0, "missing Weather.wind": 2.0}
    sample = Sample(subject=subject(ENDPOINT), start=now - HOUR, end=now, observed_us=HOUR, counts=counts)
    measured.service.save("here", [sample], State(now))
    text = text_of(client.page(f"{HERE}/drift").text)
    assert "Feature Match Mismatch Missing Extra Weather.wind 198 0 2 0" in text


def test_a_column_is_shown_beside_its_training(client) -> None:
    since = NOW - 3 * WEEK
    found = client.get(f"/api{HERE}/distribution?column=Weather.humidity&since={since}").json()
    assert (found["version"], found["current"]["rows"], found["training"]["rows"]) == ("2", 240, 20_000)
    for side in ("training", "current"):
        assert sum(each[side] for each in found["bins"]) == pytest.approx(1.0)
    assert found["bins"][0]["low"] is None
    assert [each["high"] for each in found["bins"][:-1]] == [each["low"] for each in found["bins"][1:]]
    humid = sum(each["current"] for each in found["bins"] if (each["low"] or 0) >= 62)
    assert humid > 0.9  # invented with a mean of 83, and 62 in training
    page = client.page(f"{HERE}/drift?column=Weather.humidity").text
    assert page.count('<rect class="first"') == len(found["bins"]) == page.count('<rect class="second"')
    assert "240 predictions of version 2, beside 20,000 rows of its training" in text_of(page)
    carriers = client.get(f"/api{HERE}/distribution?column=Schedule.carrier&since={since}").json()
    assert {each["category"]: each["current"] for each in carriers["bins"]}["UA"] == 0.25
    assert found["current_values"]["p01"] < found["current_values"]["p50"] < found["current_values"]["p99"]
    assert abs(found["current_values"]["p50"] - 83.0) < 3.0
    assert found["training_values"]["p50"] == pytest.approx(62.0, abs=1.0)
    assert {each["value"]: each["current"] for each in carriers["frequent"]}["UA"] == 0.25
    assert (carriers["current_values"]["distinct"], carriers["current_values"]["p50"]) == (4, None)
    of_carriers = text_of(client.page(f"{HERE}/drift?column=Schedule.carrier").text)
    assert re.search(r"distinct values \d+ about 4", of_carriers)
    assert re.search(r"EV 12.0% 25.0% UA 29.4% 25.0%", of_carriers)
    gusts = client.get(f"/api{HERE}/distribution?column=Weather.gust&since={since}").json()
    assert gusts["current"]["missing"] == 1.0
    assert client.page(f"{HERE}/drift?column=nothing").status_code == 404
    assert client.get(f"/api{HERE}/distribution?column=nothing").status_code == 404


def test_a_column_that_identifies_a_person_shows_no_value() -> None:
    made = populated()
    made.predictions.compact()
    made.monitor.run(ENDPOINT)
    marked = replace(schedule, pii=["flight"])  # which each of Schedule's features is computed from
    model = made.definitions.models[ENDPOINT]
    model = replace(model, observations=replace(model.observations, source=marked))
    made = made.having(definitions=replace(made.definitions, models={ENDPOINT: model}), sketches=made.sketches)
    client = Client(create_app(made), made.key())
    found = client.get(f"/api{HERE}/distribution?column=Schedule.carrier&since={NOW - 3 * WEEK}").json()
    assert (found["withheld"], found["bins"], found["low"]) == (True, [], None)
    assert (found["current_values"], found["training_values"], found["frequent"]) == (None, None, [])
    assert found["current"]["rows"] == 240
    page = client.page(f"{HERE}/drift?column=Schedule.carrier").text
    assert "identifies a person" in page
    assert ">UA<" not in page


def test_a_column_without_sketches_still_has_its_course_and_incidents() -> None:
    made = troubled()
    client = Client(create_app(made.project), made.project.key())
    page = client.page(f"{HERE}/drift?column=Weather.wind").text
    assert [line["y"] for line in charts_of(page)[0]["lines"]] == [
        [next(each.ks for each in window.columns if each.column == "Weather.wind") for window in windows()]
    ]
    assert "has the column 'Weather.wind' in its sketches" in text_of(page)
    assert f'href="/incidents/{made.weather}"' in page
    assert f'href="/incidents/{made.closed}"' not in page


def test_estimates_before_labels_are_drawn_with_their_intervals_and_whether_they_hold() -> None:
    made = populated()
    digest = made.versions.get(ENDPOINT, "1").digest
    for place, window in enumerate(windows()):
        rng = np.random.default_rng(place)
        score = rng.random(800)
        found = summed("binary", Rows(score, (rng.random(800) < score).astype(float)))
        every = Sums.nothing()
        every.bins[:] = scores_summed(score)
        every.totals[PLACE["predictions"]] = 800
        keys = {age: Key("1", digest, window.start, "", "", age, "binary") for age in (0, 3600)}
        sums = {keys[0]: every, keys[3600]: found}
        made.quality_table.add(ENDPOINT, {window.start: NOW}, {window.start: sums}, f"w{place}")
    client = Client(create_app(made), made.key())
    newest = client.get(f"/api{HERE}/quality").json()["windows"][-1]["measured"][0]["estimated"]["auc"]
    assert newest["low"] < newest["value"] < newest["high"]
    page = client.page(f"{HERE}/performance").text
    low, middle, high = (line["y"] for line in charts_of(page)[2]["lines"])
    assert (low[-1], middle[-1], high[-1]) == (newest["low"], newest["value"], newest["high"])
    text = text_of(page)
    assert f"{newest['value']:.4f} {newest['low']:.4f} – {newest['high']:.4f} unless the concept drifted" in text


def sample(start: int, length: int, subject: str = ENDPOINT, peaks: dict[str, float] | None = None, **counts: float):
    keys = {name.replace("__", " ").replace("_of_", "."): count for name, count in counts.items()}
    return Sample(subject=subject, start=start, end=start + length, observed_us=length, counts=keys, peaks=peaks or {})


def test_the_service_is_drawn_from_the_samples_of_the_time() -> None:
    made = populated()
    start = NOW // HOUR * HOUR - 3 * HOUR
    quiet = {"requests__200": 60.0, "seconds__0_of_01": 60.0}
    busy = {"requests__200": 60.0, "requests__503": 30.0, "rejections__queue_full": 30.0, "seconds__0_of_05": 60.0}
    gateway = sample(start + 2 * MINUTE, MINUTE, GATEWAY, cpu_s=90.0)
    made.service.save(
        "here",
        [
            sample(start, MINUTE, **quiet),
            sample(start + 2 * MINUTE, MINUTE, peaks={"waiting_rows": 7.0}, **busy),
            sample(start - 2 * DAY, MINUTE, requests__500=1.0),
            gateway,
        ],
        State(NOW),
    )
    client = Client(create_app(made), made.key())
    page = client.page(f"{HERE}/latency").text
    throughput, latency, errors, rejected, queue, cpu, logged = charts_of(page)
    assert throughput["lines"][0]["y"] == [1.0, None, 1.5]  # a minute that nobody saw is no rate of 0
    middle, slow = (line["y"] for line in latency["lines"])
    assert middle == [pytest.approx(7.5), None, pytest.approx(37.5)]  # in the buckets of 5 to 10 and 25 to 50 ms
    assert slow == [pytest.approx(9.95), None, pytest.approx(49.75)]
    assert [(line["name"], line["y"]) for line in errors["lines"]] == [("503", [0.0, None, 30.0])]
    assert [(line["name"], line["y"]) for line in rejected["lines"]] == [("queue full", [0.0, None, 30.0])]
    assert queue["lines"][0]["y"] == [None, None, 7.0]
    assert cpu["lines"][0]["y"] == [None, None, 1.5]
    assert len(logged["x"]) == len(windows())
    week = charts_of(client.page(f"{HERE}/latency?range=7d").text)
    assert [line["name"] for line in week[2]["lines"]] == ["503", "500"]
    assert len(week[0]["x"]) <= 97
    since = f"since={format_instant(start + MINUTE)}&until={format_instant(start + HOUR)}"
    assert charts_of(client.page(f"{HERE}/latency?{since}").text)[0]["lines"][0]["y"] == [1.5]


def test_without_samples_it_says_who_makes_them(administrator) -> None:
    page = administrator.page(f"{HERE}/latency").text
    assert "samples its machine’s gateway once a minute" in text_of(page)
    assert len(charts_of(page)) == 1


def test_objectives_stand_on_the_overview_and_beside_the_latency() -> None:
    promised = [ms.objectives.availability(0.9), ms.objectives.latency(0.9, within="50ms")]
    made = populated()
    watched = {ENDPOINT: ms.Monitor(ENDPOINT, objectives=promised)}
    made = made.having(definitions=replace(made.definitions, monitors=watched), monitors=made.monitors)
    made.service.save("here", [sample(NOW - HOUR, MINUTE, requests__200=95.0, requests__503=5.0)], State(NOW))
    client = Client(create_app(made), made.key())
    for tab in ("", "/latency"):
        text = text_of(client.page(f"{HERE}{tab}").text)
        assert "90% of requests answered over 30d Met 95.00% 50.0%" in text
        assert "90% of answers within 50ms over 30d No events" in text


def test_the_rollouts_of_an_endpoint_lead_to_their_pages() -> None:
    made = rolled()
    page = Client(create_app(made.project), made.project.key()).page(f"{HERE}/rollout").text
    for id in (made.live, made.rolled_back, made.stopped):
        assert f'href="/rollouts/{id}"' in page


def test_groups_are_compared_with_intervals_and_in_combination(client, measured) -> None:
    page = client.page(f"{HERE}/fairness?measure=positive+rate&least=10").text
    answer = client.get(f"/api{HERE}/fairness?least_rows=10").json()
    (version,) = answer["versions"]
    assert [report["by"] for report in version["reports"]] == [
        ["Schedule.carrier"],
        ["origin"],
        ["Schedule.carrier", "origin"],
    ]
    by_carrier = {each["group"]["Schedule.carrier"]: each for each in version["reports"][0]["groups"]}
    text = text_of(page)
    for carrier, value in (("UA", 1.0), ("B6", 0.0)):  # the labels of the kit
        rate = by_carrier[carrier]["measures"]["positive rate"]
        assert rate["value"] == value
        assert f"{carrier} {by_carrier[carrier]['rows']} {value:.3f} {rate['low']:.3f} – {rate['high']:.3f}" in text
    assert "UA lies above B6 by 1.000" in text
    assert "UA · EWR" in text
    assert page.count('<svg class="interval"') == 4 + 3 + 12
    assert '<code class="copy">mainspring fairness late-arrival --least-rows 10</code>' in page
    few = text_of(client.page(f"{HERE}/fairness").text)
    assert "insufficient data (57)" in few
    assert "Fewer than two groups have enough rows" in few


def test_without_groups_it_says_the_line_of_code(administrator) -> None:
    page = administrator.page(f"{HERE}/fairness").text
    assert "No groups are declared" in page
    (line,) = re.findall(r"<pre><code>(.*?)</code></pre>", page)
    made = eval(html.unescape(line), {"ms": ms})
    assert (made.endpoint, list(made.fairness)) == (ENDPOINT, ["flight"])
    assert administrator.get(f"/api{HERE}/fairness").status_code == 400


@pytest.mark.parametrize("query", ["least=0", "least=x", "measure=" + "x" * 301])
def test_what_no_fairness_has_is_refused(client, query: str) -> None:
    assert client.page(f"{HERE}/fairness?{query}").status_code in (400, 422)


def test_an_unknown_measure_or_version_shows_the_first(client) -> None:
    assert "Selection rate" in text_of(client.page(f"{HERE}/fairness?measure=none&part=77").text)


def test_callers_are_shown_with_their_shares_and_what_is_left_of_their_quotas(tmp_path) -> None:
    project = populated()
    project = project.having(settings=replace(project.settings, state=tmp_path))
    project.predictions.compact()
    quota = Quota("trial", rows=10)
    (route,) = project.routes.current().values()
    project.routes.publish([msgspec.structs.replace(route, quotas=(quota,))])
    client = Client(create_app(project), project.key())
    assert "Nobody used one" in text_of(client.page(f"{HERE}/callers").text)
    counts, now = Counts(folder(project.settings.state) / FILE), project.wall.now()
    end = period("day", now)[1]
    asker = next(key.id for key in project.key_store.all() if key.name == "check-in desk")
    counts.add(counts.row(name_of(quota, "rows", asker), now), 10, end, end + DAY)
    wait_until(lambda: "being counted" not in client.page(f"{HERE}/callers").text, "the callers")
    page = text_of(client.page(f"{HERE}/callers").text)
    assert "check-in desk by key trial Spent rows a day 10 10 0.0%" in page
    assert "240 100.0%" in page
    answer = client.get(f"/api{HERE}/callers").json()
    assert (answer["quotas"][0]["left"], answer["callers"][0]["share"]) == (0.0, 1.0)
    assert "Gets" not in page
    changed = msgspec.structs.replace(route, restricted=(Restriction(caller=asker, to="labels"),))
    project.routes.publish([changed])
    assert "check-in desk Gets labels alone" in text_of(client.page(f"{HERE}/callers").text)
    assert client.get(f"/api{HERE}/callers").json()["callers"][0]["restricted"] == "labels"
    counts.close()
