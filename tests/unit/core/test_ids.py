import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.ids import PredictionIds, check_id, new_id


@pytest.mark.parametrize("text", ["a", "A-1_b.c", "0", "x" * 128, "late-arrival", "OriginTraffic"])
def test_a_name_is_returned(text: str) -> None:
    assert check_id(text, "model") == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a..b", "../etc", "a/b", "a b", "-a", "_a", "a\n", "é", "x" * 129, "a\0", "a%2fb", "a;b"]
)
def test_what_could_be_a_path_or_a_query_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"cannot name a model|use at most 128"):
        check_id(text, "model")


@given(st.text(max_size=140))
def test_no_name_leaves_its_folder(text: str) -> None:
    try:
        check_id(text, "model")
    except Invalid:
        return
    assert not set(text) & set("/\\\0 \n\"'")
    assert ".." not in text
    assert not text.startswith((".", "-"))


def test_fresh_ids_are_names_unique_and_sorted_by_time() -> None:
    ids = [new_id() for _ in range(2_000)]
    assert len(set(ids)) == 2_000
    assert {len(check_id(each, "prediction")) for each in ids} == {26}
    assert [each[:10] for each in ids] == sorted(each[:10] for each in ids)


def test_ids_of_predictions_are_ids_and_never_come_twice() -> None:
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
