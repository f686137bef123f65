"""The pages of rollouts and pipelines in a real browser, on every screen, live, and with a button pressed."""

from dataclasses import replace

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import NOW, Project
from kit.console.looks import anywhere, in_order, log_in, served
from kit.console.pipelined import Pipelined, pipelined
from kit.console.rolled import Rolled, rolled
from kit.console.troubled import troubled
from mainspring.delivery.rollout.model import Status

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def rollouts() -> Rolled:
    return rolled()


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Pipelined:
    return pipelined(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def project(rollouts: Rolled, flows: Pipelined) -> Project:
    """A project with the rollouts of one and the pipelines of the other."""
    both = replace(rollouts.project.definitions, pipelines=flows.project.definitions.pipelines)
    settings = replace(rollouts.project.settings, state=flows.project.settings.state)
    kept = {name: getattr(rollouts.project, name) for name in ("rollouts", "routes", "audit")}
    return anywhere(rollouts.project.having(settings, definitions=both, jobs=flows.project.jobs, **kept))


def test_each_page_is_in_order_on_every_screen(visitor, address, rollouts, flows) -> None:
    runs = [f"/pipelines/nightly/runs/{each}" for each in (flows.asking, flows.failed)]
    both = [f"/rollouts/{each}" for each in (rollouts.live, rollouts.rolled_back)]
    pipelines = ["/pipelines", "/pipelines/chain", *runs, f"{runs[0]}/steps/load"]
    in_order(visitor, address, ["/rollouts", *both, *pipelines], cards=True)


def test_a_page_that_is_open_shows_that_somebody_stopped_the_rollout(visitor, address, project, rollouts) -> None:
    pressing, watching = visitor.page(), visitor.page()  # the newer is in front
    for page in (watching, pressing):
        page.go(f"{address}/rollouts/{rollouts.live}")
    assert "Running" in watching.do("document.querySelector('h1').textContent")
    pressing.do("document.querySelector('.action summary').click()")
    pressing.do("document.querySelector('.action input[type=checkbox]').click()")
    pressing.do("document.querySelector('.action button').click()")
    pressing.wait("Page.loadEventFired")
    assert "Stopped" in pressing.do("document.querySelector('h1').textContent")
    [state] = project.rollouts.get([rollouts.live])
    assert state is not None
    assert state.status is Status.STOPPED
    watching.until("document.querySelector('h1').textContent.includes('Stopped')")
    assert any(url.endswith("/events") for url in watching.requests)
    assert watching.complaints == pressing.complaints == []


def test_the_curves_of_a_running_run_go_on_until_they_are_paused(visitor, address, project) -> None:
    run = project.tracking.start("late-arrival", {}, NOW)
    steps = [("train.loss", 1 / (1 + step), step, NOW + step) for step in range(8)]
    project.tracking.log(run, metrics=steps[:5])
    page = visitor.page()
    page.go(f"{address}/runs/{run}")
    newest = "document.querySelector('#lines-card tbody th')?.textContent"
    page.until(f"{newest} === '4'")
    project.tracking.log(run, metrics=steps[5:7])
    page.until(f"{newest} === '6'")
    page.until("document.querySelector('#lines-card .plot.drawn canvas') !== null")
    page.do("document.getElementById('pause').click()")
    assert page.do("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    project.tracking.log(run, metrics=steps[7:])
    assert page.do(newest) == "6"
    page.do("document.getElementById('pause').click()")
    page.until(f"{newest} === '7'")
    assert page.complaints == []


def test_incidents_are_in_order_on_every_screen(visitor) -> None:
    made = troubled()
    project = anywhere(made.project)
    with served(project) as address:
        page = visitor.page()
        log_in(page, address, project.key())
        found = (made.weather, made.quality, made.closed)
        paths = ["/endpoints", "/incidents", *(f"/incidents/{each}" for each in found)]
        in_order(visitor, address, paths, cards=True)
