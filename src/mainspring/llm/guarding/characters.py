"""Characters that people do not see, or take for others.

Detectors read a text in two normal forms, each made character by character, so that it is the same however a stream was
cut:

- *clean*: NFKC; characters that are not shown are left out; tag characters and variation selectors, with which bytes
  are smuggled, are the letters that they stand for.
- *folded*: of the clean form, letters a-z and digits alone: lower case, without accents, look-alikes of other scripts
  replaced (a choice of Unicode's confusables, https://www.unicode.org/reports/tr39), digits of every script as 0-9.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_ALIKE = {
    "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "ғ": "f", "ԍ": "g", "һ": "h", "н": "h", "і": "i", "ј": "j",
    "к": "k", "ӏ": "l", "м": "m", "п": "n", "о": "o", "р": "p", "ԛ": "q", "г": "r", "ѕ": "s", "т": "t", "ц": "u",
    "ѵ": "v", "ԝ": "w", "х": "x", "у": "y", "α": "a", "β": "b", "ϲ": "c", "ε": "e", "η": "n", "ι": "i", "κ": "k",
    "μ": "u", "ν": "v", "ο": "o", "ρ": "p", "σ": "o", "τ": "t", "υ": "u", "χ": "x", "γ": "y", "ω": "w", "ζ": "z",
    "օ": "o", "ո": "n", "ս": "u", "հ": "h", "ց": "g", "ք": "p", "ı": "i", "ɑ": "a", "ɡ": "g", "ɩ": "i", "ʀ": "r",
    "ʙ": "b", "ɢ": "g", "ʜ": "h", "ɪ": "i", "ʟ": "l", "ɴ": "n", "ʏ": "y", "ᴀ": "a", "ᴄ": "c", "ᴅ": "d", "ᴇ": "e",
    "ᴊ": "j", "ᴋ": "k", "ᴍ": "m", "ᴏ": "o", "ᴘ": "p", "ᴛ": "t", "ᴜ": "u", "ᴠ": "v", "ᴡ": "w", "ᴢ": "z", "ꜰ": "f",
    "ꜱ": "s", "ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ŧ": "t",
}  # fmt: skip
# Not shown, and in no category that says so.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"

# Refused, or taken out of what comes in. A single joiner, selector, soft hyphen or direction mark is ordinary writing
# (Indic and Arabic scripts, emoji), and so are the tags of a flag.
_FLAG = "\U0001f3f4[\U000e0061-\U000e007a\U000e0030-\U000e0039]{1,6}\U000e007f"
_HIDDEN = re.compile(
    f"(?P<flag>{_FLAG})"
    "|[\U000e0000-\U000e007f]"
    "|[\u202a-\u202e\u2066-\u2069]"  # embeddings, overrides and isolates of direction
    "|[\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb]"  # of no width
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    "|[\u034f\u115f\u1160\u3164\uffa0]"
    f"|[\u00ad\u061c\u200c-\u200f{_SELECTORS}]{{2,}}"
    "|[\ud800-\udfff]"
)


def clean(letter: str) -> str:
    """Return the clean form of one character."""
    code = ord(letter)
    if 0xE0000 <= code <= 0xE007F:
        return _shown(code - 0xE0000)
    if 0xFE00 <= code <= 0xFE0F:
        return _shown(code - 0xFE00)
    if 0xE0100 <= code <= 0xE01EF:
        return _shown(code - 0xE0100 + 16)
    if letter in "\n\r\t":
        return letter
    if letter in _BLANK or unicodedata.category(letter) in ("Cf", "Cc", "Cs"):
        return ""
    return unicodedata.normalize("NFKC", letter)


def folded(letter: str) -> str:
    """Return the folded form of one character of the clean form."""
    found = ""
    for each in unicodedata.normalize("NFKD", letter.casefold()):
        known = _ALIKE.get(each, each)
        known = str(unicodedata.decimal(known)) if known.isdecimal() else known
        found += known if known.isascii() and known.isalnum() else ""
    return found


def _shown(code: int) -> str:
    return chr(code) if 0x20 <= code < 0x7F else ""


@lru_cache(1 << 16)
def forms(letter: str) -> tuple[str, str]:
    """Return the clean and the folded form of one character."""
    found = clean(letter)
    return found, "".join(map(folded, found))


def fold(text: str) -> str:
    """Return the folded form of a text."""
    return "".join([forms(letter)[1] for letter in text])


def plain(text: str) -> str:
    """Return the clean form of a text in lower case, each run of white space one space: for comparisons of words."""
    if not text.isascii():
        text = "".join([forms(letter)[0] for letter in text])
    return " ".join(text.casefold().split())


def hidden(text: str) -> Iterator[str]:
    """Yield each run of hidden characters."""
    if not text.isascii() or not text.isprintable():
        for found in _HIDDEN.finditer(text):
            if found["flag"] is None:
                yield found[0]


def without_hidden(text: str) -> str:
    """Return a text without its hidden characters."""
    return _HIDDEN.sub(lambda found: found["flag"] or "", text)
