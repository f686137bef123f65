"""The tabs of an endpoint in a real browser."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

import mainspring as ms
from kit.console.chromium import DRIVEN
from kit.console.flights import Project, populated
from kit.console.looks import anywhere, in_order
from kit.console.troubled import troubled
from kit.slots import answering, asked
from mainspring.core.time import parse_instant

pytestmark = DRIVEN

HERE = "/endpoints/late-arrival"
COLUMNS = (f"{HERE}/drift?column=Weather.humidity", f"{HERE}/drift?column=Schedule.carrier&range=all")
TABS = tuple(f"{HERE}/{tab}" for tab in ("performance", "latency", "capacity", "callers", "rollout"))
FAIR = f"{HERE}/fairness?measure=positive+rate&least=20"
DECISIONS = ("/models/late-arrival/versions/2/approve", "/models/late-arrival/versions/1/promote")
PATHS = (*TABS, *COLUMNS, f"{HERE}/performance?range=24h", FAIR, *DECISIONS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project, whose gateway answers."""
    made = troubled(populated(monitor=ms.Monitor("late-arrival", fairness=["Schedule.carrier", "origin"]))).project
    made.predictions.compact()
    made.monitor.run("late-arrival")
    made.quality_updates.run("late-arrival")
    state = tmp_path_factory.mktemp("state")
    with answering(state, asked("late-arrival").text):
        yield anywhere(made.having(settings=replace(made.settings, state=state)))


def test_each_tab_is_in_order_on_every_screen(visitor, address) -> None:
    in_order(visitor, address, (HERE, f"{HERE}/drift"))
    in_order(visitor, address, PATHS, cards=True)


def test_incidents_and_the_way_back_are_in_order_on_every_screen(visitor, address, project) -> None:
    one = f"/incidents/{project.incidents.open()[0].id}"
    in_order(visitor, address, ("/incidents", one, "/models/late-arrival/rollback"), cards=True)


def test_dragging_over_a_chart_leads_to_its_time(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}{HERE}/drift?column=Weather.humidity&range=all")
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 2")
    left, top, width = page.do(
        "(({left, top, width, height}) => [left, top + height / 2, width])"
        "(document.querySelector('#chart-distance .u-over').getBoundingClientRect())"
    )
    press = {"button": "left", "buttons": 1, "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width / 4, y=top)
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=left + width / 4, y=top, **press)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width / 2, y=top, button="left", buttons=1)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=left + width / 2, y=top, **press)
    page.until("location.search.includes('since=')")
    page.until("document.readyState === 'complete' && document.querySelectorAll('.plot.drawn canvas').length === 2")
    asked = page.do("Object.fromEntries(new URLSearchParams(location.search))")
    assert set(asked) == {"column", "since", "until"}
    assert asked["column"] == "Weather.humidity"
    starts, ends = page.do(
        "(({x, width}) => [x.map((at) => at - width / 2), x.map((at) => at + width / 2)])"
        "(JSON.parse(document.querySelector('#chart-distance .plot').dataset.chart))"
    )
    since, until = (parse_instant(asked[name]) / 1e6 for name in ("since", "until"))
    assert len(starts) in (3, 4)  # of ten windows, a quarter and what overlaps it
    assert starts[0] <= since < ends[0]
    assert starts[-1] < until <= ends[-1]
    assert page.complaints == []
