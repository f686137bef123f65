"""The tabs of an endpoint in a real browser."""

import pytest

from kit.console.chromium import DRIVEN
from kit.console.flights import Project, populated
from kit.console.looks import anywhere, in_order

pytestmark = DRIVEN

HERE = "/endpoints/late-arrival"
COLUMNS = (f"{HERE}/drift?column=Weather.humidity", f"{HERE}/drift?column=Schedule.carrier&range=all")
PATHS = (f"{HERE}/performance", *COLUMNS, f"{HERE}/capacity", f"{HERE}/rollout", f"{HERE}/performance?range=24h")


@pytest.fixture(scope="module")
def project() -> Project:
    made = populated()
    made.predictions.compact()
    made.monitor.run("late-arrival")
    made.quality_updates.run("late-arrival")
    return anywhere(made)


def test_each_tab_is_in_order_on_every_screen(visitor, address) -> None:
    in_order(visitor, address, (HERE, f"{HERE}/drift"))
    in_order(visitor, address, PATHS, cards=True)
