"""The pages of features and data in a real browser: what a person sees, with scripts and without."""

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order
from kit.console.shop import shop
from kit.depth import deep

pytestmark = DRIVEN

ENTITY = "/features/Orders?key.country=AT&key.number=1"


@pytest.fixture(scope="module")
def project() -> Project:
    return anywhere(shop())


@pytest.fixture(scope="module")
def paths(project) -> tuple[str, ...]:
    newest = project.snapshots.log(1)[0].id
    return (
        "/features",
        "/features?q=amount",
        "/features/Orders",
        "/features/Returns",
        ENTITY,
        "/features/Orders?key.country=AT&key.number=one",
        "/data",
        "/data/orders",
        "/data/tables/orders/rows",
        "/data/commits",
        f"/data/commits/{newest}",
    )


def test_each_page_is_in_order_on_every_screen(visitor, address, paths) -> None:
    in_order(visitor, address, paths)


def test_a_person_finds_a_feature_and_looks_one_entity_up(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}/features")
    page.do("document.querySelector('#q').value = 'amount'")
    page.do("document.querySelector('.search button').click()")
    page.wait("Page.loadEventFired")
    assert page.do("document.querySelectorAll('.views tbody tr').length") == 1
    page.do("document.querySelector('.matches a').click()")
    page.wait("Page.loadEventFired")
    assert (
        page.do("location.pathname + location.search + location.hash") == "/features/Orders?feature=spent_7d#over-time"
    )
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 2")
    page.do("document.querySelector('.examples a').click()")
    page.wait("Page.loadEventFired")
    assert page.do("document.querySelectorAll('.values tbody tr').length") == 9
    assert page.do("document.querySelector('.definition .chosen th a').innerText") == "spent_7d"
    assert page.complaints == []


def test_the_lineage_leads_from_the_view_to_its_source_and_back(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}/features/Orders")
    assert page.do("document.querySelector('.lineage .here .name').textContent") == "Orders"
    follow = "document.querySelector('.lineage .across a.{}').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    page.do(follow.format("source"))
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname") == "/data/orders"
    page.do(follow.format("view"))
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname") == "/features/Orders"


@deep
@pytest.mark.parametrize(("width", "shown"), [(1280, "across"), (400, "down")])
def test_the_lineage_has_a_picture_for_each_screen(visitor, address, width, shown) -> None:
    page = visitor.page(width=width)
    page.go(f"{address}/features/Orders")
    visible = "[...document.querySelectorAll('.lineage svg')].filter((s) => s.getBoundingClientRect().width > 0)"
    assert page.do(f"{visible}.map((s) => s.classList[0])") == [shown]
    smallest = (
        "Math.min(...[...document.querySelectorAll('.lineage .{} .note')]"
        ".map((text) => text.getBoundingClientRect().height))"
    )
    assert page.do(smallest.format(shown)) >= 11


def test_pointing_at_bands_says_every_quantile(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}/features/Orders?feature=spent_7d")
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 2")
    place = page.do(
        "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
        "(document.querySelector('#chart-values .u-over').getBoundingClientRect())"
    )
    page.do(f"scrollTo(0, {place[1]} - 300)")
    place = page.do(
        "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
        "(document.querySelector('#chart-values .u-over').getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    page.until("!document.querySelector('#chart-values .tip').hidden")
    said = page.do("document.querySelector('#chart-values .tip').innerText").splitlines()
    assert [line.split()[0] for line in said[1:]] == ["p95", "p75", "median", "p25", "p5"]


@deep
def test_without_scripts_everything_can_be_read(visitor, address) -> None:
    page = visitor.page(scripts=False)
    page.go(f"{address}{ENTITY}")
    shown = page.text()
    assert shown.count('class="still"') == 2
    assert "<canvas" not in shown
    for said in ("spent_7d", "What a buyer ordered lately.", "all 11", "Present", 'class="lineage"'):
        assert said in shown
    assert page.complaints == []
