"""How predictions stand in a segment: frames of `length, crc32, payload`, one a batch, after the file's first line.

A frame is whole or it does not count. What a dying writer leaves behind its last whole frame is a torn tail: nobody was
told that it was written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from mainspring.ledger.model import Prediction

MAGIC = b"mainspring predictions 1\n"
_HEADER = struct.Struct("<II")  # length of the payload in bytes, its CRC-32
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Prediction])


@dataclass(frozen=True, slots=True)
class Frames:
    """What was read of a segment. Offsets are bytes from the file's beginning."""

    payloads: list[bytes]
    end: int  # behind the last whole frame
    torn: int  # bytes behind `end`
    damaged: int  # whole frames whose content is not what was written


def encode(predictions: Sequence[Prediction]) -> bytes:
    """Return one frame."""
    payload = _encoder.encode(predictions)
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> list[Prediction]:
    """Return the predictions of one frame's payload."""
    return _decoder.decode(payload)


def scan(content: bytes, start: int) -> Frames:
    """Return the whole frames of `content`, which begins at offset `start` of its file."""
    payloads, damaged, position = [], 0, 0
    for length, checksum in _headers(content):
        position += _HEADER.size + length
        payload = content[position - length : position]
        if zlib.crc32(payload) == checksum:
            payloads.append(payload)
        else:
            damaged += 1
    return Frames(payloads, start + position, len(content) - position, damaged)


def _headers(content: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while position + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, position)
        position += _HEADER.size + length
        # A length of zero is a page that never reached the disk: no frame is empty.
        if length == 0 or position > len(content):
            return
        yield length, checksum
