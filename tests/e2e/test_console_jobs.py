"""The pages of jobs in a real browser: wide and narrow, light and dark, with scripts and without."""

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order
from kit.console.queued import Queued, queued

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def jobs() -> Queued:
    return queued(anywhere(Project()), more=40)


@pytest.fixture(scope="module")
def project(jobs: Queued) -> Project:
    return jobs.project


@pytest.fixture(scope="module")
def paths(jobs: Queued) -> tuple[str, ...]:
    return ("/jobs", "/jobs?status=failed", *(f"/jobs/{each}" for each in (jobs.done, jobs.failed, jobs.running)))


def test_each_page_is_in_order_on_every_screen(visitor, address, paths) -> None:
    in_order(visitor, address, paths, cards=True)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_person_finds_what_failed_and_why(visitor, address, jobs, scripts) -> None:
    page = visitor.page(scripts=scripts)
    page.go(f"{address}/")
    for link in ("nav.sections a[href='/jobs']", ".tabs a[href$='failed']", "table.jobs tbody th a"):
        _follow(page, link)
    found = page.text()
    assert f"mainspring jobs retry {jobs.failed}" in found
    assert "second line of it" in found
    _follow(page, ".crumbs a")
    _follow(page, ".under .next")
    assert 'rel="next"' not in page.text()
    assert page.complaints == []


def _follow(page, selector: str) -> None:
    """Click a link as a mouse does: also where no script runs."""
    page.call("DOM.enable")
    root = page.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    page.call("DOM.scrollIntoViewIfNeeded", nodeId=node)
    x1, y1, _, _, x3, y3, *_ = page.call("DOM.getContentQuads", nodeId=node)["quads"][0]
    place = {"x": (x1 + x3) / 2, "y": (y1 + y3) / 2, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, **place)
    page.wait("Page.loadEventFired")
