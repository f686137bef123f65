"""The pages of rollouts in a real browser: wide and narrow, light and dark, live and with a button pressed."""

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order
from kit.console.rolled import Rolled, rolled
from mainspring.delivery.rollout.model import Status

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def rollouts() -> Rolled:
    return rolled()


@pytest.fixture(scope="module")
def project(rollouts: Rolled) -> Project:
    return anywhere(rollouts.project)


def test_each_page_is_in_order_on_every_screen(visitor, address, rollouts) -> None:
    in_order(
        visitor, address, ("/rollouts", f"/rollouts/{rollouts.live}", f"/rollouts/{rollouts.rolled_back}"), cards=True
    )


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
    assert watching.complaints == pressing.complaints == []
