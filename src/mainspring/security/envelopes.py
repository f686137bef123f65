"""Envelopes: contents encrypted with AES-256-GCM under a data key that they name.

    "MSE", 1 | id of the data key, 16 bytes | salt, 16 bytes | chunks, each with a tag of 16 bytes

Every envelope draws a salt, from which and the data key its own key follows: one block of HMAC-SHA-256 in counter mode
(NIST SP 800-108). So no nonce is ever used twice under a key, whichever processes, forks and threads encrypt. A content
is cut into chunks of 256 KiB, whose nonce is their number and, of the last, a flag (STREAM, Hoang et al. 2015): a chunk
that is missing, repeated or in another place is noticed. Each chunk authenticates the store and the record that it
belongs to, so an envelope cannot be moved to another.

Many small contents, such as the values of a column, share a salt, so that a key is derived once for all of them:

    "MSE", 2 | id of the data key, 16 bytes | salt, 16 bytes | number, 4 bytes | content, with a tag of 16 bytes

The nonce of each is its number among them; the label of the derivation is another than that of the first kind.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mainspring.core.errors import Corrupt
from mainspring.security.model import DataKey

MAGIC = b"MSE\x01"
MAGIC_EACH = b"MSE\x02"
CHUNK = 256 * 1024  # bytes of a content
_ID, _SALT, _TAG, _NUMBER = 16, 16, 16, 4
_HEAD = len(MAGIC) + _ID + _SALT
_LABEL = b"\x00\x00\x00\x01mainspring envelope 1\x00"
_LABEL_EACH = b"\x00\x00\x00\x01mainspring envelope 2\x00"
_MOST_EACH = 1 << 32  # contents under one derived key: as many as there are numbers
_BITS = b"\x00\x00\x01\x00"  # of the derived key
_ONLY = bytes(11) + b"\x01"  # nonce of a content's only chunk


def seal(key: DataKey, store: str, record: str, content: bytes) -> bytes:
    """Return content encrypted for one record of a store."""
    head, cipher = _begin(key)
    if len(content) <= CHUNK:
        return head + cipher.encrypt(_ONLY, content, _about(store, record))
    return head + b"".join(_sealed(cipher, _about(store, record), _cut(memoryview(content))))


def seal_parts(key: DataKey, store: str, record: str, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the envelope of a content that is given in parts, in the memory of some chunks."""
    head, cipher = _begin(key)
    yield head
    yield from _sealed(cipher, _about(store, record), _pieces(parts, CHUNK))


def key_of(envelope: bytes) -> str:
    """Return the id of the data key that an envelope, or its beginning, names.

    Raises:
        Corrupt: It is not an envelope.
    """
    return _key_of(envelope, MAGIC, MAGIC_EACH)


def seal_each(key: DataKey, store: str, records: Iterable[str], contents: Sequence[bytes]) -> list[bytes]:
    """Return contents encrypted, each for its record of a store, under one key that is derived for all of them."""
    if len(contents) > _MOST_EACH:
        raise ValueError(f"{len(contents)} contents have no nonces of their own.")
    salt = os.urandom(_SALT)
    head, encrypt = MAGIC_EACH + bytes.fromhex(key.id) + salt, _cipher_each(key.secret, salt).encrypt
    numbers = (number.to_bytes(_NUMBER) for number in range(len(contents)))
    return [
        head + number + encrypt(bytes(8) + number, content, _about(store, record))
        for number, record, content in zip(numbers, records, contents, strict=True)
    ]


def unseal_each(
    secrets: Callable[[str], bytes], store: str, records: Iterable[str], envelopes: Sequence[bytes]
) -> list[bytes]:
    """Return the contents of envelopes of `seal_each`, which may be of several calls and keys.

    Args:
        secrets: Returns the secret of a data key by its id.

    Raises:
        Corrupt: One is no such envelope, was changed, is another record's, or the key is another.
    """
    ciphers: dict[bytes, AESGCM] = {}  # by head
    found = []
    for record, envelope in zip(records, envelopes, strict=True):
        head = envelope[:_HEAD]
        cipher = ciphers.get(head)
        if cipher is None:
            if head[: len(MAGIC)] != MAGIC_EACH:
                raise _damaged("is not one of several envelopes of this version")
            cipher = ciphers[head] = _cipher_each(secrets(key_of(head)), head[len(MAGIC) + _ID :])
        number, sealed = envelope[_HEAD : _HEAD + _NUMBER], envelope[_HEAD + _NUMBER :]
        try:
            found.append(cipher.decrypt(bytes(8) + number, sealed, _about(store, record)))
        except (InvalidTag, ValueError):
            raise _damaged(f"does not open as {record} of {store}") from None
    return found


def unseal(secret: bytes, store: str, record: str, envelope: bytes) -> bytes:
    """Return the content of an envelope.

    Args:
        secret: That of the data key which `key_of` returns.

    Raises:
        Corrupt: It was changed or cut, is another record's, or the key is another.
    """
    _key_of(envelope, MAGIC)
    cipher, about = _cipher(secret, envelope[len(MAGIC) + _ID : _HEAD]), _about(store, record)
    if len(envelope) > _HEAD + CHUNK + _TAG:
        return b"".join(_opened(cipher, about, _cut(memoryview(envelope)[_HEAD:], CHUNK + _TAG)))
    try:
        return cipher.decrypt(_ONLY, envelope[_HEAD:], about)
    except (InvalidTag, ValueError):
        raise _damaged(f"does not open as {record} of {store}") from None


def unseal_parts(secrets: Callable[[str], bytes], store: str, record: str, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of an envelope that is given in parts. What was yielded is authentic; that nothing is missing
    is known only at the end.

    Args:
        secrets: Returns the secret of a data key by its id.

    Raises:
        Corrupt: As `unseal`.
    """
    given, head = iter(parts), b""
    while len(head) < _HEAD and (part := next(given, None)) is not None:
        head += part
    cipher = _cipher(secrets(_key_of(head, MAGIC)), head[len(MAGIC) + _ID : _HEAD])

    def rest() -> Iterator[bytes]:
        yield head[_HEAD:]
        yield from given

    yield from _opened(cipher, _about(store, record), _pieces(rest(), CHUNK + _TAG))


def _key_of(envelope: bytes, *kinds: bytes) -> str:
    if envelope[: len(MAGIC)] not in kinds or len(envelope) < _HEAD:
        raise _damaged("is not an envelope of this version")
    return envelope[len(MAGIC) : len(MAGIC) + _ID].hex()


def _begin(key: DataKey) -> tuple[bytes, AESGCM]:
    salt = os.urandom(_SALT)
    return MAGIC + bytes.fromhex(key.id) + salt, _cipher(key.secret, salt)


def _cipher(secret: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(secret, _LABEL + salt + _BITS, "sha256"))


@lru_cache(maxsize=1024)  # states of a store that were written together are read one by one
def _cipher_each(secret: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(secret, _LABEL_EACH + salt + _BITS, "sha256"))


def _about(store: str, record: str) -> bytes:
    return f"{store}\0{record}".encode()


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + bytes([last])


def _sealed(cipher: AESGCM, about: bytes, chunks: Iterable[tuple[bytes | memoryview, bool]]) -> Iterator[bytes]:
    for number, (chunk, last) in enumerate(chunks):
        yield cipher.encrypt(_nonce(number, last=last), chunk, about)


def _opened(cipher: AESGCM, about: bytes, chunks: Iterable[tuple[bytes | memoryview, bool]]) -> Iterator[bytes]:
    for number, (chunk, last) in enumerate(chunks):
        try:
            yield cipher.decrypt(_nonce(number, last=last), chunk, about)
        except (InvalidTag, ValueError):
            raise _damaged(f"does not open as {about.decode().replace(chr(0), ': ')} from chunk {number} on") from None


def _cut(content: memoryview, size: int = CHUNK) -> Iterator[tuple[memoryview, bool]]:
    """Yield chunks of a content of at least one byte, and whether each is the last."""
    for start in range(0, len(content), size):
        yield content[start : start + size], start + size >= len(content)


def _pieces(parts: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield parts put together or cut to chunks, and whether each is the last; an empty content is one chunk."""
    held = bytearray()
    for part in parts:
        held += part
        while len(held) > size:  # not at its size: it may be the last
            yield bytes(held[:size]), False
            del held[:size]
    yield bytes(held), True


def _damaged(how: str) -> Corrupt:
    return Corrupt(f"An encrypted content {how}: it was changed, cut or moved.", fix="restore it from a backup.")
