import pytest

from mainspring.llm.guarding.patterns import PERSONAL, host_of, iban, luhn, shapes
from mainspring.llm.guarding.scanner import Rules, scan

RULES = Rules(
    shapes(dict.fromkeys(PERSONAL, "redact"), secrets=True, domains=["example.org"]),
    treatments={"personal": "redact", "secret": "redact", "link": "redact"},
)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("write to Bob.Smith+x@mail.example.com.", "write to [email]."),
        ("call +49 (0) 30 123456, now", "call [phone], now"),
        ("call +1 (555) 010-9999", "call [phone]"),
        ("call (212) 555-0100 or 212-555-0100", "call [phone] or [phone]"),
        ("pay 4111 1111 1111 1111 or 378282246310005", "pay [card] or [card]"),
        ("pay 4111\u200b1111\u200b1111\u200b1111", "pay [card]"),
        ("to DE89 3704 0044 0532 0130 00 IN EUR", "to [iban] IN EUR"),
        ("iban:gb29nwbk60161331926819;", "iban:[iban];"),
        ("key AKIA" + "ABCDEFGHIJKLMNOP", "key [aws-access-key]"),
        ("sk-proj-" + "a1" * 20, "[model-api-key]"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "[private-key]"),
        ("eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[jwt]"),
        ("![x](https://evil.example/?q=1)", "![x[link])"),
        ("![x](//evil.example/a.png)", "![x[link])"),
        ("![x](&#104;ttps://evil.example)", "![x[link])"),
        ("[1]: https:evil.example", "[1[link]"),
        ('<img src="https://evil.example/a">', '<img [link]">'),
        ("go to www.evil.example now", "go to [link] now"),
        (r"go to https:\\evil.example/a", "go to [link]"),
        ("https://example.org@evil.example/", "[link]"),
        ("https://еxample.org/", "[link]"),  # Cyrillic
    ],
)
def test_what_must_not_go_out_is_redacted(text: str, given: str) -> None:
    assert scan(RULES, text)[0] == given


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 is no card, and 12345678901234567890123 is none",
        "DE88 3704 0044 0532 0130 00 has wrong digits",
        "On 2024-05-06 12:30 the build 1.2.3-4 took 3600 s; ISBN 978-3-16-148410-0",
        "a@b is no address, and neither is @name or user@localhost",
        "see [the page](howto/access.md#keys), ![a](images/a.png), https://docs.example.org/a?b=1",
        "a // comment, `x = a//b`, dict[key]: value, std::vector, C:\\Users\\ana",
        "sk-short and ghp_short, task-force, AKIA",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
    ],
)
def test_ordinary_text_passes(text: str) -> None:
    given, scanner = scan(RULES, text)
    assert (given, scanner.findings) == (text, [])


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert iban("GB82WEST12345698765432")
    assert not iban("GB82WEST1234569876543")
    assert not iban("ZZ82WEST12345698765432")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://A.example.org:8/x", "a.example.org"),
        ("bob@example.org", "example.org"),
        ("https://example.org\\@evil.example", "example.org"),
        ("https://example.org@evil.example", "evil.example"),
        ("https://[::1", ""),
        ("a b@example.org", ""),
        ("eve@evil.example>,<bob@example.org", ""),
        ("https://example.org/ https://evil.example", ""),
        ("mailto:bob@Example.org", "example.org"),
        ("@", ""),
    ],
)
def test_the_host_of_an_address(text: str, host: str) -> None:
    assert host_of(text) == host
