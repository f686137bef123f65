"""Text that leaves while it is written, against the judgement of the whole: it is its beginning, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.llm.answers.citing import cited, uncited
from mainspring.llm.answers.model import Passage
from mainspring.llm.answers.speaking import Speaking, declines

PASSAGES = tuple(
    Passage(id=f"c{number}", score=1.0, document=f"d{number}", start=0, end=9, text="A text.") for number in range(3)
)
PARTS = (
    "NOT FOUND", "not", " found", '"', ".", "* ", "[1]", "[", "]", "1", "2", "[2, 3]", " [9]", "[1-3]", "\n", " ",
    "Source", "s", "[sources 2", "[ Source 1 ]", "Refunds ", "٣", "\u2003", "are paid", ";", "–",
)  # fmt: skip


def spoken(texts: list[str]) -> Speaking:
    said = list[str]()
    speaking = Speaking(PASSAGES, said.append)
    for text in texts:
        speaking.hear(text)
    assert speaking.said == "".join(said)
    assert speaking.heard == "".join(texts)
    assert "" not in said
    return speaking


@settings(max_examples=examples(gate=300, deep=20_000), deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), max_size=14))
def test_what_leaves_is_the_beginning_of_the_whole_answer_and_of_no_answer_nothing_does(texts: list[str]) -> None:
    speaking = spoken(texts)
    whole, citations, _ = cited("".join(texts), PASSAGES)
    bare = uncited(whole).strip()
    assert whole.startswith(speaking.said)
    if not citations or declines(bare):
        assert speaking.said == ""
    assert speaking.said == speaking.said.strip()
    assert whole == whole.strip()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["Refunds ", "take ", "two weeks"], ""),  # nothing is cited yet
        (["Refunds ", "take ", "two weeks ", "[1]", "."], "Refunds take two weeks [1]."),
        (["Refunds ", "[1", ", 2", "] take ", "two "], "Refunds [1][2] take two"),
        (["Refunds [1] take", " [", "7", "] two"], "Refunds [1] take two"),  # of no passage
        (["Refunds [1] take [sic", "]"], "Refunds [1] take [sic]"),
        (["[1] NOT FOUND"], ""),
        (["NOT FOUND [1]"], ""),
        (["NOT FOUND [1]", " in May, but in June [2]"], "NOT FOUND [1] in May, but in June [2]"),
        (["[1]", "[2]"], ""),  # nothing but marks
        (["It [9] is", " not cited [4]"], ""),
        ([" [9]", "\n", "Refunds [1]", "\n", " [9]"], "Refunds [1]"),  # no space that unknown marks leave around it
        (["Refunds [1]", "\n [9]", " take two"], "Refunds [1]\n take two"),
    ],
)
def test_words_leave_once_the_answer_is_certain_to_be_one(texts: list[str], said: str) -> None:
    assert spoken(texts).said == said
