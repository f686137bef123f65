"""The pages of models, versions, cards and searches in a real browser: what a person sees, with scripts and without."""

from dataclasses import dataclass

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order
from kit.console.registered import MODEL, optimised, registered, searched
from kit.depth import deep

pytestmark = DRIVEN


@dataclass(frozen=True)
class Searched:
    """Runs of searches: one that has ended, one that goes on, one of very many trials."""

    ended: str
    going: str
    large: str


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = anywhere(registered(tmp_path_factory.mktemp("project")))
    optimised(project, "33")
    return project


@pytest.fixture(scope="module")
def searches(project: Project) -> Searched:
    return Searched(searched(project), searched(project, ended=False, seed=9), searched(project, 1500, seed=5))


@pytest.fixture(scope="module")
def paths(searches: Searched) -> tuple[str, ...]:
    return (
        "/models",
        "/models?q=nobody",
        f"/models/{MODEL}",
        f"/models/{MODEL}?before=12",
        f"/models/{MODEL}/history",
        f"/models/{MODEL}/versions/34",
        f"/models/{MODEL}/versions/33",
        f"/models/{MODEL}/versions/1",
        f"/models/{MODEL}/versions/34/card",
        f"/models/{MODEL}/versions/34/evaluation",
        f"/models/{MODEL}/versions/1/card",
        f"/runs/{searches.ended}",
        f"/runs/{searches.ended}/search",
        f"/runs/{searches.going}/search",
        f"/runs/{searches.large}/search",
    )


def test_each_page_is_in_order_on_every_screen(visitor, address, paths) -> None:
    in_order(visitor, address, paths, cards=True)


def test_a_person_goes_from_the_models_to_a_versions_run_and_card(visitor, address, project) -> None:
    page = visitor.page()
    page.go(f"{address}/")
    for link in ("nav.sections a[href='/models']", f"th a[href='/models/{MODEL}']", "table.registered th a"):
        page.do(f'document.querySelector("{link}").click()')
        page.wait("Page.loadEventFired")
    assert page.do("location.pathname") == f"/models/{MODEL}/versions/34"
    assert page.do("document.querySelector('h1').innerText").split("\n")[0].startswith(f"{MODEL} 34")
    page.until("document.querySelectorAll('table.metrics .interval circle').length === 5")
    page.do("document.querySelector('.chain a[href^=\"/runs/\"]').click()")
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname") == f"/runs/{project.versions.get(MODEL, '34').run_id}"
    page.go(f"{address}/models/{MODEL}/versions/34")
    page.do("document.querySelector('.side a[href$=\"/card\"]').click()")
    page.wait("Page.loadEventFired")
    assert "Contact has not been written yet." in page.do("document.querySelector('table.gaps').innerText")
    assert page.do("document.querySelectorAll('main script, main [onclick], main a[href^=\"javascript\"]').length") == 0
    assert page.complaints == []


def test_the_card_is_a_file_to_keep(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}/models/{MODEL}/versions/34/card")
    told = page.do(
        "fetch(document.querySelector('a[download]').href).then(async (answer) => "
        "[answer.status, answer.headers.get('content-disposition'), await answer.text()])"
    )
    assert told[:2] == [200, f'attachment; filename="{MODEL}-34-card.md"']
    assert told[2].startswith(f"# Model card: {MODEL}, version 34")


def test_the_best_dot_is_highest_and_its_line_never_falls(visitor, address, searches) -> None:
    page = visitor.page()
    page.go(f"{address}/runs/{searches.ended}/search")
    middle = "((each) => { const box = each.getBoundingClientRect(); return box.top + box.height / 2; })"
    heights = page.do(f"[...document.querySelectorAll('#history .dot:not(li)')].map({middle})")
    assert page.do(f"{middle}(document.querySelector('#history .dot.top'))") <= min(heights) + 0.5
    assert len(heights) == 47
    page.do("document.querySelector('#history .dot.top').parentElement.dispatchEvent(new MouseEvent('click'))")
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname").startswith("/runs/")
    assert page.complaints == []


@deep
def test_without_scripts_everything_is_there(visitor, address, searches) -> None:
    page = visitor.page(scripts=False)
    page.go(f"{address}/runs/{searches.ended}/search")
    shown = page.text()
    assert shown.count('class="dot"') >= 46
    assert shown.count('class="share"') == 3
    page.go(f"{address}/models/{MODEL}")
    assert page.text().count('class="still"') == 1
    assert page.complaints == []
