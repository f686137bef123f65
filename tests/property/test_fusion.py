"""Reciprocal rank fusion against the formula, and what must hold for any lists."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mainspring.vectors.fusion import fuse
from mainspring.vectors.model import Hit

_IDS = st.sampled_from("abcdefgh")
_LISTS = st.dictionaries(
    st.sampled_from(["texts", "vectors", "titles"]),
    st.lists(st.builds(Hit, _IDS, st.floats(-10, 10)), max_size=8, unique_by=lambda hit: hit.id),
    max_size=3,
)
_WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 2.0])


@given(lists=_LISTS, k=st.integers(1, 10), constant=st.sampled_from([0, 1, 60]), data=st.data())
def test_the_score_is_the_formula_s(lists: dict[str, list[Hit]], k: int, constant: int, data: st.DataObject) -> None:
    weights = {name: data.draw(_WEIGHTS) for name in lists if data.draw(st.booleans())}
    exact: dict[str, Fraction] = {}
    for name, hits in lists.items():
        for place, hit in enumerate(hits):
            share = Fraction(weights.get(name, 1.0)) / (constant + place + 1)
            exact[hit.id] = exact.get(hit.id, Fraction(0)) + share
    fused = fuse(lists, k, weights=weights, constant=constant)
    assert len(fused) == min(k, len(exact))
    for hit in fused:
        assert math.isclose(hit.score, exact[hit.id], rel_tol=1e-12)
        assert math.fsum(place.share for place in hit.places.values()) == hit.score
        for name, place in hit.places.items():
            assert lists[name][place.rank - 1] == Hit(hit.id, place.score)
        assert {name for name, hits in lists.items() if any(each.id == hit.id for each in hits)} == set(hit.places)
    left_out = set(exact) - {hit.id for hit in fused}
    assert all(fused[-1].score >= float(exact[each]) * (1 - 1e-12) for each in left_out)


@given(lists=_LISTS)
def test_the_order_of_lists_does_not_count_and_ties_are_by_id(lists: dict[str, list[Hit]]) -> None:
    fused = fuse(lists, 100)
    assert fuse(dict(reversed(lists.items())), 100) == fused
    assert fused == sorted(fused, key=lambda hit: (-hit.score, hit.id))
    assert fuse(lists, 3) == fused[:3]


@given(hits=st.lists(st.builds(Hit, _IDS, st.floats(-10, 10)), max_size=8, unique_by=lambda hit: hit.id))
def test_one_list_keeps_its_order(hits: list[Hit]) -> None:
    assert [hit.id for hit in fuse({"only": hits, "empty": []}, 100)] == [hit.id for hit in hits]
