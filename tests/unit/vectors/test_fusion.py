"""Fusion of ranked lists."""

from __future__ import annotations

from typing import Any

import pytest

from mainspring.core.errors import Invalid
from mainspring.vectors.fusion import FusedHit, Place, fuse
from mainspring.vectors.model import Hit


def test_a_hit_of_both_lists_comes_before_the_first_of_one() -> None:
    lists = {"texts": [Hit("t", 9.0), Hit("both", 3.0)], "vectors": [Hit("v", 0.9), Hit("both", 0.8)]}
    both, text, vector = fuse(lists, 5)
    assert both == FusedHit("both", 2 / 62, {"texts": Place(2, 3.0, 1 / 62), "vectors": Place(2, 0.8, 1 / 62)})
    assert (text.id, vector.id) == ("t", "v")
    assert [hit.id for hit in fuse(lists, 5, weights={"vectors": 2.5})] == ["both", "v", "t"]


def test_an_id_counts_once_in_a_list() -> None:
    (hit,) = fuse({"chunks": [Hit("a", 2.0), Hit("a", 1.0)]}, 5)
    assert hit.places == {"chunks": Place(1, 2.0, 1 / 61)}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"k": 0}, "the 0 best"),
        ({"weights": {"x": 1.0}}, "'x' has a weight and is no list"),
        ({"weights": {"a": -1.0}}, "weight of 'a'"),
        ({"weights": {"a": float("nan")}}, "weight of 'a'"),
        ({"constant": float("inf")}, "constant"),
    ],
)
def test_numbers_without_a_meaning_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        fuse({"a": [Hit("x", 1.0)]}, **{"k": 3, **given})
