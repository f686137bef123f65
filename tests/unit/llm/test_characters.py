import pytest

from mainspring.llm.guarding.characters import fold, hidden, plain, without_hidden

FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"


@pytest.mark.parametrize(
    "text",
    [
        "IGNORE all",
        "i\u200bg\u200cn\u2060ore a\ufeffll",
        "іgnоrе аll",  # Cyrillic
        "ｉｇｎｏｒｅ ａｌｌ",
        "𝖎𝖌𝖓𝖔𝖗𝖊 𝖆𝖑𝖑",
        "ígnòré äll",
        "i-g.n o_r*e a/l l",
        "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all"),
        "".join(chr(0xE0100 + ord(letter) - 16) for letter in "ignore all"),
        "\u202eignore\u202c all",
    ],
)
def test_texts_that_look_alike_have_one_folded_form(text: str) -> None:
    assert fold(text) == "ignoreall"


def test_digits_of_every_script_are_digits() -> None:
    assert fold("٣4５") == "345"
    assert plain(" A\u00a0 b\u200b\nC ") == "a b c"


@pytest.mark.parametrize(
    "text",
    [
        "plain text, with\ttabs and\nlines",
        "café, שלום, مرحبا\u200f!, क्\u200dष, \U0001f468\u200d\U0001f469\u200d\U0001f467, ❤\ufe0f",
        FLAG,
        "soft\u00adhyphen",
    ],
)
def test_ordinary_writing_has_nothing_hidden(text: str) -> None:
    assert not list(hidden(text))
    assert without_hidden(text) == text


@pytest.mark.parametrize(
    "trick",
    [
        "\u202e", "\u2066", "\u200b", "\u2063", "\ufeff", "\x1b", "\x00", "\u200c\u200d\u200c", "\ufe00\ufe01",
        "\U000e0061", "\U000e0001", "\u3164", "\ud800",
    ],
)  # fmt: skip
def test_hidden_characters_are_found_and_taken_out(trick: str) -> None:
    assert "".join(hidden(f"a{trick}b")) == trick
    assert without_hidden(f"a{trick}b{FLAG}") == f"ab{FLAG}"
