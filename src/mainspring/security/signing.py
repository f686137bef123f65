"""Signatures: by an installation's own key, Ed25519 (RFC 8032), and by a secret that two sides share, HMAC."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mainspring.core.errors import Corrupt
from mainspring.security import secrets

_SIGNATURE = "<!-- Ed25519 signature of everything before this line: "


class SigningKey:
    """A private key. Its seed is a secret of 32 bytes in a file."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """Return the key at `path`, created if it is missing. Raises as `secrets.load_or_create` does."""
        return cls(secrets.load_or_create(path, 32))

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes, for `verify`."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(content)


def signed_text(body: str, sign: Callable[[bytes], bytes]) -> str:
    """Return a page of HTML or Markdown whose last line is a signature of everything before it."""
    return f"{body}{_SIGNATURE}{_base64(sign(body.encode()))} -->\n"


def check_signed_text(content: bytes, public: bytes) -> None:
    """Raise unless a page of `signed_text` is whole, and signed by a key.

    Raises:
        Corrupt: It was changed, cut, or signed by another key.
    """
    body, mark, rest = content.rpartition(_SIGNATURE.encode())
    try:
        signature = base64.b64decode(rest.removesuffix(b" -->\n") if mark else b"", validate=True)
    except ValueError:
        signature = b""
    verify(public, signature, body)
    if rest != _base64(signature).encode() + b" -->\n":
        raise Corrupt("The page has something behind its signature.", fix="write it again.")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def hmac_signature(secret: str, content: bytes) -> str:
    """Return `sha256=` and the HMAC of content by a shared secret, as GitHub signs its webhooks."""
    return "sha256=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def verify(public: bytes, signature: bytes, content: bytes) -> None:
    """Raise if `signature` is not the key's signature of `content`.

    Raises:
        Corrupt: It is not, or the signature or the key is malformed.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        raise Corrupt(
            "The signature does not match: it was made with another key, or the content was changed.",
            fix="restore the content from a backup, or create it again with this project's key.",
        ) from None
