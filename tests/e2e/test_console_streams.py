"""The pages of streams in a real browser: wide and narrow, light and dark, with scripts and without."""

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order
from kit.console.streaming import BEHIND, STOPPED, streaming

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def project() -> Project:
    return anywhere(streaming())


def test_each_page_is_in_order_on_every_screen(visitor, address) -> None:
    in_order(visitor, address, ("/streams", f"/streams/{BEHIND}", f"/streams/{STOPPED}"), cards=True)
