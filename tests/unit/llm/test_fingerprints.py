import base64
import codecs

import pytest

from mainspring.llm.guarding.fingerprints import Fingerprints, canary
from mainspring.llm.guarding.scanner import Rules, scan

KEY = b"k" * 32
CANARY = canary(KEY, "You are a clerk.")
SECRET = "Tr0ub4dor&3-horse/Staple+9"
RULES = Rules(
    fingerprints={"canary": Fingerprints([("prompt", CANARY)]), "secret": Fingerprints([("crm", SECRET)])},
    treatments={"canary": "refuse", "secret": "redact"},
)


def b64(text: str, before: int) -> str:
    return base64.b64encode(b"x" * before + text.encode() + b" and more").decode()


def b32(text: str, before: int) -> str:
    return base64.b32encode(b"x" * before + text.encode() + b" and more").decode()


WRITTEN = {
    "plain": lambda text: text,
    "upper": str.upper,
    "backwards": lambda text: text[::-1],
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "hex": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "spaced": " ".join,
    "dashed": "-".join,
    "lines": "\n".join,
    "zero width": "\u200b".join,
    "full width": lambda text: "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text),
    "cyrillic": lambda text: text.translate(str.maketrans("aeopcyx", "аеорсух")),
    "tags": lambda text: "".join(chr(0xE0000 + ord(each)) for each in text),
    **{f"base64 {before}": lambda text, before=before: b64(text, before) for before in range(6)},
    **{f"base32 {before}": lambda text, before=before: b32(text, before) for before in range(6)},
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize(("kind", "text"), [("canary", CANARY), ("secret", SECRET)])
def test_a_text_is_found_however_it_is_written(kind: str, text: str, how: str) -> None:
    given, scanner = scan(RULES, f"Well, it is {WRITTEN[how](text)} as I said.")
    assert [found.kind for found in scanner.findings][:1] == [kind]
    assert text not in given
    assert (scanner.refused is not None) is (kind == "canary")
    assert given.startswith("Well, it is ")


@pytest.mark.parametrize("half", [CANARY[:16], CANARY[16:]])
def test_half_of_a_canary_is_found(half: str) -> None:
    assert scan(RULES, f"begin {half} end")[1].refused is not None


def test_other_texts_are_not_found() -> None:
    other = canary(KEY, "You are another clerk.")
    assert scan(RULES, f"{other} {canary(b'l' * 32, 'You are a clerk.')} {CANARY[:12]} {SECRET[:9]}")[1].findings == []


def test_a_canary_is_of_its_prompt_and_key() -> None:
    assert len(CANARY) == 32
    assert canary(KEY, "You are a clerk.") == CANARY


def test_texts_are_not_kept_and_short_ones_are_named() -> None:
    found = Fingerprints([("crm", SECRET), ("pin", "12-34")])
    assert found.too_short == ["pin"]
    state = repr([getattr(found, name) for name in vars(found)])
    assert SECRET not in state
    assert "tr0ub4dor" not in state
