"""The pages of runs in a real browser: what a person sees, with scripts and without."""

import itertools

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import NOW, Project
from kit.console.looks import anywhere, in_order
from kit.console.trials import tried
from kit.depth import deep
from mainspring.core.time import HOUR, MINUTE, SECOND
from mainspring.registry.runs import NAME

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def project() -> Project:
    made = tried()
    (run,) = (each for each in made.tracking.search(limit=1000) if each.tags.get(NAME) == "trial-52")
    long = "system/process_memory_usage_megabytes"  # the longest that a training logs by itself
    made.tracking.log(run.id, metrics=[(long, 500 + at, 0, NOW + at * SECOND) for at in range(3)])
    return anywhere(made)


@pytest.fixture(scope="module")
def ids(project) -> dict[str, str]:
    return {run.tags[NAME]: run.id for run in project.tracking.search(limit=1000) if NAME in run.tags}


@pytest.fixture(scope="module")
def paths(ids) -> tuple[str, ...]:
    several = "&".join(f"run={ids[f'trial-{number:02d}']}" for number in range(20))
    return (
        "/runs",
        f"/runs?open={ids['the sweep']}",
        "/find?q=trial",
        "/runs?q=metrics.holdout.auc+%3E+high",
        "/runs?find=loss&sort=metrics.holdout.auc+desc",
        f"/runs/{ids['trial-52']}",
        f"/runs/{ids['the sweep']}",
        f"/runs/{ids['<b>broken</b>']}",
        "/runs/compare",
        f"/runs/compare?{several}",
    )


def test_each_page_is_in_order_on_every_screen(visitor, address, paths) -> None:
    in_order(visitor, address, paths)


def test_a_person_finds_runs_and_compares_them(visitor, address) -> None:
    page = visitor.page()
    page.go(f"{address}/runs")
    page.do("document.querySelector('#q').value = 'params.optimizer = adam trial'")
    page.do("document.querySelector('.finder button').click()")
    page.wait("Page.loadEventFired")
    page.do("[...document.querySelectorAll('.sort')].find((a) => a.innerText.startsWith('holdout.auc')).click()")
    page.wait("Page.loadEventFired")
    values = page.do("[...document.querySelectorAll('td[data-label=\"holdout.auc\"]')].map((td) => +td.innerText)")
    assert values == sorted(values, reverse=True)
    assert len(values) > 5
    page.do("[...document.querySelectorAll('.pick input')].slice(0, 4).forEach((box) => box.click())")
    page.do("document.querySelector('.under button').click()")
    page.wait("Page.loadEventFired")
    assert page.do("document.querySelector('h1').innerText") == "4 runs compared"
    page.until("document.querySelectorAll('.plot.drawn canvas').length === 2")
    page.do("document.querySelector('.parallel .line').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    page.wait("Page.loadEventFired")
    assert page.do("location.pathname").startswith("/runs/")
    assert page.complaints == []


@deep
def test_without_scripts_everything_can_be_read(visitor, address, paths) -> None:
    page = visitor.page(scripts=False)
    page.go(f"{address}{paths[-1]}")
    shown = page.text()
    assert "<canvas" not in shown
    assert shown.count('class="still"') == 2
    assert shown.count('<a class="line"') == 20
    assert page.complaints == []


RECORD = """window.written = [];
const fill = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const { a, b, c, d, e, f } = this.getTransform();
  const width = a * this.measureText(text).width, share = { center: 0.5, right: 1, end: 1 }[this.textAlign] || 0;
  const left = a * x + c * y + e - width * share, right = this.canvas.width - left - width;
  window.written.push([text, Math.round(b * x + d * y + f), Math.round(left), Math.round(right), Math.round(width)]);
  return fill.apply(this, arguments);
};"""


@pytest.mark.parametrize("every", [SECOND // 20, 2 * SECOND, 40 * MINUTE, 11 * HOUR])
@pytest.mark.parametrize("reach", [1e-6, 4.0])
def test_no_two_labels_of_an_axis_are_alike_or_overlap(visitor, address, project, every, reach) -> None:
    run = project.tracking.start("late", {}, NOW - HOUR)
    values = [("system/cpu_percent", 95 + reach * at / 9, 0, NOW - HOUR + at * every) for at in range(10)]
    project.tracking.log(run, metrics=values)
    page = visitor.page()
    page.call("Page.addScriptToEvaluateOnNewDocument", source=RECORD)
    page.go(f"{address}/runs/{run}")
    page.until("document.querySelector('.plot.drawn canvas') && window.written.length > 6")
    drawn = sorted({tuple(each) for each in page.do("window.written")}, key=lambda each: each[1:3])
    texts = [text for text, *_ in drawn]
    assert len(texts) > 6
    assert sorted(texts) == sorted(set(texts))
    assert all(left >= 0 and right >= 0 for _, _, left, right, _ in drawn)
    for (_, y, left, _, width), (_, lower, beside, _, _) in itertools.pairwise(drawn):
        assert y != lower or left + width < beside
