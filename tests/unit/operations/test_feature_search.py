from __future__ import annotations

import pytest

from kit.console.shop import Orders, Returns
from mainspring.operations.features.search import owners, search

VIEWS = (Returns, Orders)


def names(words: str = "", owner: str | None = None) -> list[str]:
    return [found.view.name for found in search(VIEWS, words, owner)]


def test_everything_by_name() -> None:
    assert names() == ["Orders", "Returns"]


@pytest.mark.parametrize(
    "words",
    [
        "Orders",
        "oRDERS_24h",
        "in euros",
        "growth",
        "gold",
        "tier=gold",
        "what a buyer ordered",
        "orders as they come",
        "amount",
        "paid_24h / orders",
        "growth spent",
    ],
)
def test_a_view_is_found_by_all_that_is_said_of_it(words: str) -> None:
    assert names(words) == ["Orders"]


@pytest.mark.parametrize("words", ["buyer", "country", "whoever pays", "7d"])
def test_both_have_it(words: str) -> None:
    assert names(words) == ["Orders", "Returns"]


def test_every_word_must_be_there() -> None:
    assert names("growth returns") == []
    assert names("nothing of the kind") == []
    assert names(".*") == []


def test_who_is_called_so_comes_first() -> None:
    assert names("returns") == ["Returns"]
    assert names("s") == ["Orders", "Returns"]


def test_the_features_it_was_found_in() -> None:
    (found,) = search(VIEWS, "amount")
    assert found.features == ("spent_7d", "largest_7d")
    (found,) = search(VIEWS, "gold")
    assert found.features == ()


def test_by_owner() -> None:
    assert owners(VIEWS) == ["growth"]
    assert names(owner="growth") == ["Orders"]
    assert names(owner="nobody") == []
    assert names("returns", owner="growth") == []
