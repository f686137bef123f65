"""Findings in an answer, and what is passed on of it, are the same however the stream was cut; memory is bounded."""

import base64
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.llm.guarding.fingerprints import Fingerprints, canary
from mainspring.llm.guarding.patterns import PERSONAL, shapes
from mainspring.llm.guarding.scanner import HELD, Rules, Scanner, scan

CANARY = canary(b"k" * 32, "p")
SECRET = "Tr0ub4dor&3-horse/Staple+9"
SHAPES = shapes(dict.fromkeys(PERSONAL, "redact"), secrets=True, domains=["example.org"])
PRINTS = {"canary": Fingerprints([("prompt", CANARY)]), "secret": Fingerprints([("crm", SECRET)])}
PIECES = [
    CANARY, CANARY[:16], CANARY.upper(), CANARY[::-1], " ".join(CANARY), "\u200b".join(CANARY), CANARY[:20], SECRET,
    base64.b64encode(b"hello " + CANARY.encode() + b"!").decode(), SECRET.encode().hex(), SECRET[:8],
    "bob.smith@mail.example.com", "+1 (555) 010-9999", "4111 1111 1111 1111", "378282246310005", "4111\u200b1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "gb29nwbk60161331926819", "-----BEGIN RSA " + "PRIVATE KEY-----", "AKIA" + "ABCDEFGHIJKLMNOP",
    "sk-proj-" + "a1" * 30,
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0.c2ln", "![x](https://evil.example/?q=", "](  //a.b",
    "[1]: <https://evil.example>", "https://docs.example.org/a", "src= 'https:a", "\U000e0061" * 30, "\u200b" * 40, "é",
    "The order is on its way.", " ", "\n", ".", ":", "(", "x" * 600, "9" * 25, "AB12 CD34 EF56", "\x1c", "и", "ＡＢ",
]  # fmt: skip
TREATMENTS = st.fixed_dictionaries(
    {kind: st.sampled_from(["refuse", "redact", "mark"]) for kind in ("canary", "secret", "personal", "link")}
)
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.text(string.ascii_letters + string.digits + " .:@/-+(\u200b", max_size=6), max_size=12
).map("".join)


@settings(max_examples=examples(gate=150, deep=5000), deadline=None)
@given(TEXTS, TREATMENTS, st.data())
def test_cuts_change_nothing(text: str, treatments: dict[str, str], data: st.DataObject) -> None:
    rules = Rules(SHAPES, PRINTS, treatments)
    given_whole, whole = scan(rules, text)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=20) | st.just(list(range(len(text)))))
    scanner, passed = Scanner(rules), ""
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
        passed += scanner.feed(text[start:end])
        assert len(scanner._text) <= HELD
    passed += scanner.finish()
    assert (passed, scanner.findings, scanner.refused) == (given_whole, whole.findings, whole.refused)


@settings(max_examples=examples(gate=30, deep=300), deadline=None)
@given(st.sampled_from([" ", "-", "\u200b", ". ", "\U000e0020"]), st.integers(1, 1500))
def test_a_canary_that_is_spread_out_is_found_with_bounded_memory(between: str, times: int) -> None:
    rules = Rules((), PRINTS, {"canary": "refuse"})
    scanner = Scanner(rules)
    for letter in CANARY[:16]:
        for part in (letter, between * times):
            scanner.feed(part)
            assert len(scanner._text) <= HELD
            assert len(scanner._clean.text) < 2 * HELD
            assert len(scanner._folded.text) < 1000
    scanner.finish()
    assert scanner.refused is not None
    assert scan(rules, "".join(letter + between * times for letter in CANARY[:16]))[1].findings == scanner.findings


def test_ordinary_text_waits_for_a_word() -> None:
    scanner = Scanner(Rules(SHAPES, PRINTS))
    text = "the quick brown fox jumps over the lazy dog and sleeps " * 20
    passed = 0
    for place, letter in enumerate(text, 1):
        passed += len(scanner.feed(letter))
        assert place - passed <= 12
