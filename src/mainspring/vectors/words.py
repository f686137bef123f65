"""Words of a text, as a text index counts them: in any script, without stop words and without stems."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from mainspring.core.errors import Invalid

MOST_ASKED = 1024  # different words of a query
LONGEST_WORD = 255  # characters; the rest of a longer one is cut off
_PLAIN = re.compile("[a-z0-9]+")
_PLANES = 0x20000  # code points in which all marks and controls of living scripts are
# Scripts that put no space between words: each character is a word (Unicode Standard Annex 29 does so for ideographs).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u309f"  # Hiragana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)


def words(text: str) -> list[str]:
    """Return the words of a text in their order: letters, marks and digits of a row.

    Case, width and composition do not count (Unicode's NFKC_Casefold), invisible characters are left out.
    """
    if text.isascii():
        return [each[:LONGEST_WORD] for each in _PLAIN.findall(text.lower())]
    word, invisible = _patterns()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", invisible.sub("", text)).casefold())
    return [each[:LONGEST_WORD] for each in word.findall(folded)]


def asked_words(queries: Sequence[str], k: int) -> list[list[str]]:
    """Return the words of each query, each word once.

    Raises:
        Invalid: `k` is below 1, or a query has too many words.
    """
    if k < 1:
        raise Invalid(f"A search is for the {k} best.", fix="ask for 1 or more.")
    asked = [list(dict.fromkeys(words(each))) for each in queries]
    most = max(map(len, asked), default=0)
    if most > MOST_ASKED:
        raise Invalid(f"A query has {most} different words.", fix=f"ask with {MOST_ASKED} or fewer.")
    return asked


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    kinds: dict[str, list[str]] = {"M": [], "Cf": []}
    for character in map(chr, range(_PLANES)):
        category = unicodedata.category(character)
        kinds.get("M" if category[0] == "M" else category, []).append(character)
    marks, controls = ("".join(map(re.escape, each)) for each in kinds.values())
    spaced = f"[^\\W_{_UNSPACED}]"
    return re.compile(f"[{_UNSPACED}][{marks}]*|{spaced}+(?:[{marks}]+{spaced}*)*"), re.compile(f"[{controls}]")
