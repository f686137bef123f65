"""Shapes of personal data, of secrets and of links in the clean form of a text.

Each match has at most `LONGEST` characters, and lies within the words that `held_from` holds back at the end of a part:
so a scanner that sees a text in parts finds what it would find in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST = 512  # characters of a match, and of what is held back
_MOST_SPACES = 8

_COUNTRIES = (
    "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23GL18"
    "GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MR27MT31MU30NL18NO15"
    "PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20"
)
_IBAN_LENGTHS = {_COUNTRIES[at : at + 2]: int(_COUNTRIES[at + 2 : at + 4]) for at in range(0, len(_COUNTRIES), 4)}

# Shapes that their issuers document. The first alternatives are the more special ones.
_SECRETS = {
    "private-key": r"-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----",
    "aws-access-key": r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])",
    "github-token": r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{36,255})",
    "gitlab-token": r"glpat-[A-Za-z0-9_-]{20,64}",
    "slack-token": r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    "google-api-key": r"AIza[A-Za-z0-9_-]{35}",
    "stripe-key": r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,128}",
    "model-api-key": r"sk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{20,256}",
    "hugging-face-token": r"hf_[A-Za-z0-9]{30,64}",
    "package-index-token": r"(?:pypi-[A-Za-z0-9_-]{50,256}|npm_[A-Za-z0-9]{36})",
    "mainspring-key": r"msp_[A-Za-z0-9]{4,40}_[A-Za-z0-9_-]{20,128}",
    "jwt": r"eyJ[A-Za-z0-9_-]{8,160}\.eyJ[A-Za-z0-9_-]{8,160}(?:\.[A-Za-z0-9_-]{8,160})?",
}
_DOMAIN = r"(?:[\w-]{1,63}\.){1,4}[^\W\d_]{2,24}"


@dataclass(frozen=True, slots=True)
class Shape:
    """A regular expression, and a check of what it matched.

    Attributes:
        kind: "personal", "secret" or "link".
        check: Match -> name and length of what is found, or `None`; a match that is none is no obstacle for one that
            begins after it.
    """

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str]], tuple[str, int] | None]


def luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def iban(text: str) -> bool:
    """Return whether a text without spaces is an IBAN: its country's length, right check digits (ISO 13616)."""
    if not (text.isascii() and text.isalnum() and len(text) == _IBAN_LENGTHS.get(text[:2].upper())):
        return False
    turned = text[4:] + text[:4]
    return int("".join(str(int(each, 36)) for each in turned)) % 97 == 1


def _named(name: str) -> Callable[[re.Match[str]], tuple[str, int]]:
    return lambda found: (name, len(found[0]))


def _card(found: re.Match[str]) -> tuple[str, int] | None:
    return ("card", len(found[0])) if luhn(re.sub(r"[ -]", "", found[0])) else None


def _iban(found: re.Match[str]) -> tuple[str, int] | None:
    wanted, seen = _IBAN_LENGTHS.get(found[0][:2].upper(), 0), 0
    for length, letter in enumerate(found[0], 1):
        seen += letter != " "
        if seen == wanted:
            whole = length == len(found[0]) or found[0][length] == " "
            return ("iban", length) if whole and iban(found[0][:length].replace(" ", "")) else None
    return None


def _secret(found: re.Match[str]) -> tuple[str, int]:
    return (found.lastgroup or "").replace("_", "-"), len(found[0])


PERSONAL = {
    "email": Shape(
        "personal",
        re.compile(rf"(?<![\w.+-])[\w.+-]{{1,64}}@{_DOMAIN}(?![\w-])"),
        _named("email"),
    ),
    "phone": Shape(
        "personal",
        re.compile(
            r"(?<![\w+])(?:\+[1-9](?:(?:[.\-/]|\)? ?\(?)[0-9]){6,14}|\([2-9][0-9]{2}\) ?[0-9]{3}[-. ][0-9]{4}"
            r"|[2-9][0-9]{2}([-.])[0-9]{3}\1[0-9]{4})(?![0-9])"
        ),
        _named("phone"),
    ),
    "iban": Shape(
        "personal",
        re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}|[a-z]{2}[0-9]{2}[a-z0-9]{11,30})"),
        _iban,
    ),
    "card": Shape(
        "personal",
        re.compile(
            r"(?<![0-9.-])[2-6](?:[0-9]{12,18}|[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}"
            r"|[0-9]{3}([ -])[0-9]{6}\2[0-9]{5})(?![0-9])"
        ),
        _card,
    ),
}  # fmt: skip

SECRETS = Shape(
    "secret",
    re.compile(
        r"(?<![A-Za-z0-9])(?:"
        + "|".join(f"(?P<{name.replace('-', '_')}>{shape})" for name, shape in _SECRETS.items())
        + ")"
    ),
    _secret,
)

_LINK = re.compile(
    # A destination in Markdown or HTML, then an address anywhere.
    rf"(?:\]\(|\]:|\b(?:src|href|action|url)=)\s{{0,{_MOST_SPACES}}}[<\"'(]?(?P<to>[^\s<>\"')]{{1,400}})"
    r"|(?P<bare>[A-Za-z][A-Za-z0-9+.-]{1,15}:[/\\]{2}[^\s<>\"')]{1,240}"
    rf"|(?<![\w:/\\])//(?:[^\s/\\<>\"'@]{{0,64}}@)?{_DOMAIN}[^\s<>\"')]{{0,120}}|\bwww\.[^\s<>\"')]{{1,240}})"
)
_MAILED = re.compile(rf"(?:mailto:)?[\w.+-]{{1,64}}@({_DOMAIN})")
_RELATIVE = re.compile(r"[\w.,~#?=/-]*", re.ASCII)


def links(domains: Sequence[str]) -> Shape:
    """Return the shape of links to hosts other than some domains and those below them.

    A destination of Markdown or HTML that is no plain relative path, and no address of such a host, is one too.
    """

    def check(found: re.Match[str]) -> tuple[str, int] | None:
        given = found["to"] or found["bare"]
        relative = found["to"] is not None and _RELATIVE.fullmatch(given) and not given.startswith("//")
        if (relative and not given.startswith("www.")) or within(host_of(given), domains):
            return None
        return "link", len(found[0])

    return Shape("link", _LINK, check)


def host_of(text: str) -> str:
    """Return the host of an address or of an e-mail address, in lower case; empty where there is none."""
    text = text.replace("\\", "/")
    if "//" not in text:
        mailed = _MAILED.fullmatch(text)
        if mailed is not None or "@" in text:
            return mailed[1].lower() if mailed is not None else ""
        text = f"//{text}"
    if any(each in ' \t\r\n<>"' for each in text):
        return ""
    try:
        return (urlsplit(text).hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def within(host: str, domains: Sequence[str]) -> bool:
    """Return whether a host is one of some domains, or below one."""
    return any(host == each or host.endswith(f".{each}") for each in domains) if host else False


_GOES_ON = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789()=:"  # ends a word of a match that has another one


def held_from(text: str, low: int = 0) -> int:
    """Return where the words begin, at the end of a part of a text, that may be the beginning of a match.

    It is the last word, and each one before it that ends with a capital, a digit, or a sign after which a match may
    have a space; at most `LONGEST` characters, and nothing before `low`.
    """
    low = max(low, len(text) - LONGEST)
    start = _word(text, len(text), low)
    while start > low:
        end = start
        while end > low and start - end <= _MOST_SPACES and text[end - 1].isspace():
            end -= 1
        before = _word(text, end, low)
        if end in (start, before) or text[end - 1] not in _GOES_ON:
            break
        start = before
    return start


def _word(text: str, end: int, low: int) -> int:
    while end > low and not text[end - 1].isspace():
        end -= 1
    return end


def shapes(personal: Mapping[str, str], *, secrets: bool, domains: Sequence[str] | None) -> tuple[Shape, ...]:
    """Return the shapes to look for.

    Args:
        personal: Names of `PERSONAL`.
        domains: Hosts that links may have; `None`: all.
    """
    found = [PERSONAL[name] for name in personal]
    if secrets:
        found.append(SECRETS)
    if domains is not None:
        found.append(links(domains))
    return tuple(found)
