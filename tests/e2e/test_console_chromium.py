"""The console in a real browser: what a person sees, with scripts and without."""

import json

import pytest

from kit.console.chromium import DRIVEN, Browser, browser
from kit.console.flights import Project, populated
from kit.console.looks import anywhere, in_order, log_in

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def project() -> Project:
    return anywhere(populated())


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def key(project) -> str:
    return project.key()


@pytest.fixture(scope="module")
def logged_in(chromium: Browser, address: str, key: str) -> Browser:
    log_in(chromium.page(), address, key)
    return chromium


def test_a_key_leads_to_the_overview_with_its_charts_drawn(chromium, address, key) -> None:
    page = chromium.page()
    log_in(page, address, key)
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 4")
    assert page.do("document.querySelector('h1').innerText").startswith("late-arrival")
    painted = """[...document.querySelectorAll('.plot canvas')].map((canvas) => {
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.filter((value, at) => at % 4 === 3 && value > 0).length;
    })"""
    assert min(page.do(painted)) > 500
    assert page.do("getComputedStyle(document.querySelector('.still')).display") == "none"
    only_the_first_answer = [line for line in page.complaints if "401" not in line]
    assert only_the_first_answer == []


def test_nothing_is_fetched_from_anywhere_else(logged_in, address, project) -> None:
    page = logged_in.page()
    page.go(address)
    page.go(f"{address}/predictions/{project.predictions.recent(limit=1)[0].id}")
    assert len(page.requests) >= 8
    assert [url for url in page.requests if not url.startswith((f"{address}/", "data:"))] == []
    assert page.complaints == []


def test_a_prediction_is_one_click_away(logged_in, address, project) -> None:
    page = logged_in.page()
    page.go(address)
    page.do("document.querySelector('.recent a').click()")
    page.wait("Page.loadEventFired")
    newest = project.predictions.recent(limit=1)[0]
    assert page.do("location.pathname") == f"/predictions/{newest.id}"
    text = page.do("document.querySelector('main').innerText")
    assert newest.digest in text
    assert page.do("document.querySelectorAll('.features svg .here').length") >= 10
    assert page.complaints == []


def test_pointing_at_a_chart_says_the_numbers(logged_in, address) -> None:
    page = logged_in.page()
    page.go(address)
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 4")
    place = page.do(
        "(({left, top, width, height}) => [left + width - 8, top + height / 2])"
        "(document.querySelector('#chart-traffic .u-over').getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    page.until("!document.querySelector('#chart-traffic .tip').hidden")
    assert page.do("document.querySelector('#chart-traffic .tip').innerText") == "26 Aug – 2 Sept\npredictions 6,120"


def test_without_scripts_everything_can_be_read(logged_in, address, project) -> None:
    page = logged_in.page(scripts=False)
    page.go(address)
    shown = page.text()
    assert shown.count('class="still"') == 4
    assert "<canvas" not in shown
    for said in ("late-arrival", "60,049", "Schedule.month", "3 in two windows running", "26 Aug – 2 Sep 2013 UTC"):
        assert said in shown
    one = project.predictions.recent(limit=30)[20]
    page.go(f"{address}/predictions/{one.id}")
    assert one.digest in page.text()
    assert page.complaints == []


def test_each_page_is_in_order_on_every_screen(logged_in, address, project) -> None:
    newest, *_, older = project.predictions.recent(limit=21)
    predictions = (f"/predictions/{newest.id}", f"/predictions/{older.id}")
    in_order(logged_in, address, ("/", *predictions, "/keys", "/audit", "/login"))


def test_the_palette_finds_a_page_by_the_keyboard_alone(logged_in, address) -> None:
    page = logged_in.page()
    page.go(f"{address}/jobs")
    press = (
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', ctrlKey: {}, bubbles: true}}))"
    )
    page.do(press.format("k", "true"))
    page.until("document.querySelector('dialog.palette')?.open && document.activeElement.id === 'palette-words'")
    assert page.do("document.querySelectorAll('#palette-hits li').length") >= 9  # the pages, before a word is typed
    page.do("document.activeElement.value = 'weather wind'; document.activeElement.dispatchEvent(new Event('input'))")
    page.until("document.querySelector('#palette-hits li b')?.innerText.startsWith('Weather')")
    assert page.do("document.querySelector('[aria-selected=true]').id") == "hit-0"
    page.do(press.format("Enter", "false"))
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname") == "/features/Weather"
    assert page.complaints == []


def test_times_of_the_persons_zone_and_back(logged_in, address) -> None:
    page = logged_in.page()
    page.call("Emulation.setTimezoneOverride", timezoneId="America/New_York")
    page.go(f"{address}/audit")
    first = "document.querySelector('tbody time').innerText"
    utc, instant = page.do(first), page.do("document.querySelector('tbody time').dateTime")
    assert utc.endswith("UTC")
    page.do("document.getElementById('zone').click()")
    assert page.do(first) != utc
    assert page.do("document.getElementById('zone').innerText") == "times of America/New_York, charts in UTC"
    page.go(f"{address}/audit")  # it is kept
    assert not page.do(first).endswith("UTC")
    assert page.do("document.querySelector('tbody time').dateTime") == instant
    page.do("document.getElementById('zone').click()")
    assert page.do(first) == utc


def test_a_table_is_saved_as_csv_and_json(logged_in, address) -> None:
    page = logged_in.page()
    page.go(f"{address}/")
    page.do("URL.createObjectURL = (blob) => { window.made = blob; return '#'; }")
    button = "[...document.querySelectorAll('.table-tools button')].find((each) => each.innerText === '{}').click()"
    page.do(button.format("CSV"))
    head, first, *_ = page.do("window.made.text()").split("\r\n")
    page.do(button.format("JSON"))
    rows = json.loads(page.do("window.made.text()"))
    assert head.split(",")[0] in rows[0]
    assert first.startswith(next(iter(rows[0].values())))
    assert not any("–" in value for row in rows for value in row.values() if value == "–")
