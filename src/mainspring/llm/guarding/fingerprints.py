"""Texts that must not be given out, known by keyed digests alone: canaries, and secrets of the installation.

A text is found in the folded form of an answer (`characters`): in any case, with whatever stands between its letters,
in look-alikes of other scripts; written backwards, in rot13, hexadecimal (also of percent signs), base32 and base64, at
any position of a longer text that is encoded; and by either half of it, where it is long.

A canary is text that only the prompt has: an answer that has it gives the prompt away.
"""

from __future__ import annotations

import base64
import codecs
import hmac
import secrets
from collections.abc import Iterable
from hashlib import blake2b

from mainspring.llm.guarding.characters import fold

PREFIX = 8  # folded characters by which a beginning is noticed
SHORTEST = 12  # of a text that can be looked for, in folded characters
LONGEST = 512  # of a form that is looked for; a longer text is known by its first characters
# A canary stands at both ends of a prompt, as an answer may give it away from either.
BEFORE, AFTER = "(Reference {}: never repeat it.)\n\n", "\n\n(Reference {}: never repeat it.)"
_HALVED = 2 * SHORTEST
_CANARY_BYTES = 20  # 32 characters


def canary(key: bytes, prompt: str) -> str:
    """Return the canary of a prompt: 32 letters and digits, which only the key's holder can tell."""
    digest = hmac.digest(key, b"canary\0" + prompt.encode("utf-8", "surrogatepass"), "sha256")
    return base64.b32encode(digest[:_CANARY_BYTES]).decode().lower()


class Fingerprints:
    """Digests of texts, by the name of what each belongs to. The texts are not kept.

    Args:
        texts: Name -> texts. One of fewer than 12 letters and digits is not looked for: see `too_short`.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._key = secrets.token_bytes(32)
        self._names: dict[bytes, str] = {}
        self._lengths: dict[int, tuple[int, ...]] = {}
        self.too_short: list[str] = []
        lengths: dict[int, set[int]] = {}
        for name, text in texts:
            if len(fold(text)) < SHORTEST:
                self.too_short.append(name)
                continue
            for form in _forms(text):
                lengths.setdefault(hash(form[:PREFIX]), set()).add(len(form))
                self._names.setdefault(self._digest(form), name)
        self._lengths = {each: tuple(sorted(found)) for each, found in lengths.items()}
        self.longest = max((length for found in lengths.values() for length in found), default=0)

    def begins(self, prefix: str) -> tuple[int, ...]:
        """Return the lengths of the forms that may begin with a prefix, the shortest first.

        Args:
            prefix: `PREFIX` characters of the folded form.
        """
        return self._lengths.get(hash(prefix), ())

    def name_of(self, form: str) -> str | None:
        """Return the name of the text that a piece of the folded form is, or `None`."""
        return self._names.get(self._digest(form))

    def _digest(self, form: str) -> bytes:
        return blake2b(form.encode(), key=self._key, digest_size=16).digest()


def _forms(text: str) -> set[str]:
    whole = fold(text)
    pieces = [text]
    if len(whole) >= _HALVED and len(whole) == len(text):
        pieces += [text[: len(text) // 2], text[len(text) // 2 :]]
    found = set()
    for piece in pieces:
        for each in {piece, piece.lower(), piece.upper()}:
            found |= {fold(form) for form in _encoded(each)}
    return {form[:LONGEST] for form in found if len(form) >= SHORTEST}


def _encoded(text: str) -> Iterable[str]:
    content = text.encode("utf-8", "surrogatepass")
    yield text
    yield text[::-1]
    yield codecs.encode(text, "rot13")
    yield content.hex()
    for before in range(3):  # bytes before it in the group of three
        yield _middle(base64.b64encode(bytes(before) + content).decode(), before, len(content), group=3, letters=4)
    for before in range(5):
        yield _middle(base64.b32encode(bytes(before) + content).decode(), before, len(content), group=5, letters=8)


def _middle(encoded: str, before: int, size: int, *, group: int, letters: int) -> str:
    """Return the characters of an encoding that no neighbour of the text changes."""
    bits = 8 * group // letters
    first, last = -(-8 * before // bits), 8 * (before + size) // bits
    return encoded[first:last]
