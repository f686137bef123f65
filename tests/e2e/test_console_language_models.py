"""The pages of language models, collections and costs in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import mainspring as ms
from kit.console.answering import answering
from kit.console.chromium import DRIVEN
from kit.console.costly import PRICES, spend
from kit.console.flights import Project
from kit.console.looks import anywhere, in_order

pytestmark = DRIVEN


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = answering(tmp_path_factory.mktemp("answering"))
    budgets = {name: ms.Budget(name, project=True, month=amount) for name, amount in (("a", "1 EUR"), ("b", "9 EUR"))}
    definitions = replace(made.definitions, budgets=budgets)
    found = anywhere(made.having(settings=replace(made.settings, prices=PRICES), definitions=definitions))
    spend(found, found.key())
    vars(found)["encoder"] = made.encoder
    return found


def test_each_page_is_in_order_on_every_screen(visitor: Any, address: str, project: Project) -> None:
    answer = project.predictions.recent("help", 1)[0].id
    paths = (
        "/prompts", "/prompts/desk", "/language-models", "/language-models/assistant", "/answers", "/answers/help",
        f"/predictions/{answer}/answer", "/held-calls", "/collections", "/collections/docs",
        "/collections/docs/search?q=refunds&mode=hybrid", "/cost", "/cost?by=endpoint&spread=all",
    )  # fmt: skip
    in_order(visitor, address, paths, cards=True)
