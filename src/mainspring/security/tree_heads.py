"""Signed heads of Merkle trees, in the published form of C2SP: a checkpoint (c2sp.org/tlog-checkpoint) in a signed note
(c2sp.org/signed-note) by Ed25519. Tools of transparency logs read and verify them.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from mainspring.core.errors import Corrupt
from mainspring.security.signing import SigningKey, verify

_ED25519 = b"\x01"
_LONGEST = 64 * 1024
_NOTE = re.compile(
    r"([^\s+]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n((?:.+\n)*)\n((?:\u2014 [^\s+]+ [A-Za-z0-9+/=]+\n)+)"
)


class ForeignHead(Corrupt):
    """A head that this installation's key did not sign."""


@dataclass(frozen=True, slots=True)
class Head:
    """A tree of one moment: its log's name, its size and its root. The name has no spaces and no plus sign."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def sign_head(head: Head, key: SigningKey) -> str:
    """Return the head as a note, signed under the name of its log."""
    signature = _key_id(head.origin, key.public) + key.sign(head.text.encode())
    return f"{head.text}\n\u2014 {head.origin} {b64encode(signature).decode()}\n"


def read_head(note: str) -> Head:
    """Return the head in a note, whoever signed it.

    Raises:
        Corrupt: It is not a checkpoint.
    """
    return _parsed(note)[0]


def open_head(note: str, public: bytes) -> Head:
    """Return the head in a note that this key signed.

    Raises:
        ForeignHead: It has no signature by this key.
        Corrupt: It is not a checkpoint, or its signature is not that of its content.
    """
    return open_note(note, public)[1]


def open_note(note: str, public: bytes) -> tuple[str, Head]:
    """Return a note with this key's signature alone, and the head in it.

    Raises:
        ForeignHead: It has no signature by this key.
        Corrupt: It is not a checkpoint, or its signature is not that of its content.
    """
    head, text, signatures = _parsed(note)
    mine = _key_id(head.origin, public)
    for line in signatures.splitlines():
        _, name, encoded = line.split(" ")
        signature = decoded(encoded)
        if name == head.origin and signature[:4] == mine:
            verify(public, signature[4:], text.encode())
            return f"{text}\n{line}\n", head
    raise ForeignHead(
        f"The head of {head.size:,} events is not signed by the key {public.hex()[:12]}….",
        fix="name the public key of the installation that wrote it.",
    )


def _parsed(note: str) -> tuple[Head, str, str]:
    found = _NOTE.fullmatch(note) if len(note) <= _LONGEST else None
    if found is None:
        raise Corrupt("The head is not a signed checkpoint.", fix="run `mainspring audit verify`.")
    origin, size, encoded, more, signatures = found.groups()
    return Head(origin, int(size), decoded(encoded)), f"{origin}\n{size}\n{encoded}\n{more}", signatures


def decoded(text: str) -> bytes:
    """Return the bytes of a text in base 64.

    Raises:
        Corrupt: It is not base 64, or not the one way to write these bytes.
    """
    try:
        content = b64decode(text, validate=True)
    except ValueError:
        content = b""
    if b64encode(content).decode() != text:
        raise Corrupt(f"{text[:100]!r} is not base 64.", fix="run `mainspring audit verify`.")
    return content


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(origin: str, public: bytes) -> str:
    """Return the public key in the form that verifiers of notes take: name, id and key."""
    return f"{origin}+{_key_id(origin, public).hex()}+{b64encode(_ED25519 + public).decode()}"
