"""Leaves of the audit log's tree: the bytes that stand for an event, and the commitment to its subject.

Version 1 is, in big-endian numbers: the byte 1; the event's number, 8 bytes; its instant, UTC epoch microseconds, 8
bytes, signed; the lengths of actor, action, resource and detail in UTF-8, 4 bytes each; the length of the commitment, 1
byte, 0 or 32; then the four texts and the commitment. Lengths come first, so no two events have the same bytes.

The commitment is SHA-256 of 32 random bytes and the subject. Without these bytes nobody can find the subject by trial,
so erasing both erases the person and leaves the tree as it is.
"""

from __future__ import annotations

import os
from hashlib import sha256
from struct import Struct

_VERSION = 1
_HEADER = Struct(">BBQqIIIIB")  # 0x00, which a leaf begins with, and the header
_SALT_BYTES = 32


def event_leaf(
    number: int, at: int, actor: str, action: str, resource: str, detail: str, commitment: bytes | None
) -> bytes:
    """Return the hash of an event as a leaf of the tree."""
    joined, sealed = f"{actor}{action}{resource}{detail}", commitment or b""
    lengths = [len(actor), len(action), len(resource), len(detail)]
    if not joined.isascii():
        lengths = [len(text.encode()) for text in (actor, action, resource, detail)]
    header = _HEADER.pack(0, _VERSION, number, at, *lengths, len(sealed))
    return sha256(header + joined.encode() + sealed).digest()


def commit(subject: str) -> tuple[bytes, bytes]:
    """Return a new salt and the commitment to a subject by it."""
    salt = os.urandom(_SALT_BYTES)
    return salt, commitment(salt, subject)


def commitment(salt: bytes, subject: str) -> bytes:
    """Return the commitment to a subject, 32 bytes."""
    return sha256(salt + subject.encode()).digest()
