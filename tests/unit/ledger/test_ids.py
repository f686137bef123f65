"""Ids of predictions."""

import time

from mainspring.core.ids import check_id, new_id
from mainspring.ledger.ids import PredictionIds


def test_ids_are_ids_and_never_come_twice() -> None:
    makers = [PredictionIds(), PredictionIds()]
    made = [each for maker in makers for count in (1, 5, 0, 300) for each in maker.take(count)]
    assert len(made) == len(set(made)) == 612
    assert all(check_id(each, "prediction") == each and len(each) == 26 for each in made)


def test_ids_sort_by_when_they_were_made_among_all_ids() -> None:
    maker, made = PredictionIds(), []
    for _ in range(5):
        made += [maker.take(1)[0], new_id()]
        time.sleep(0.002)
    assert sorted(made, key=lambda each: each[:10]) == made


def test_the_count_begins_again_without_a_gap_in_length() -> None:
    maker = PredictionIds()
    maker._next = (1 << 30) - 2
    made = maker.take(4)
    assert len(set(made)) == 4
    assert {len(each) for each in made} == {26}
