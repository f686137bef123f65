"""Words of a text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.vectors.words import LONGEST_WORD, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello, World! don't snake_case 3.14", ["hello", "world", "don", "t", "snake", "case", "3", "14"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("東京タワー is tall", ["東", "京", "タワー", "is", "tall"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("pass\u200bword ab\u00adcd", ["password", "abcd"]),
        ("x\ud800y \0 🙂", ["x", "y"]),
        ("", []),
    ],
)
def test_words_are_letters_marks_and_digits(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@settings(max_examples=examples(gate=50, deep=5_000))
@given(text=st.text(max_size=60))
def test_words_are_words_of_themselves(text: str) -> None:
    found = words(text)
    assert words(" ".join(found)) == found
    assert all(0 < len(each) <= LONGEST_WORD for each in found)
    assert not any(character.isspace() for each in found for character in each)


@settings(max_examples=examples(gate=50, deep=5_000))
@given(text=st.text(st.characters(max_codepoint=127), max_size=60))
def test_a_text_of_plain_letters_has_the_words_it_has_beside_others(text: str) -> None:
    assert words(text) == words(text + " é")[:-1]
