"""Format of a segment: frames of `length, crc32, payload`, one a write, after the file's first line.

A frame counts only if it is whole, and is self-contained. Bytes that a dying writer leaves behind its last whole frame
are a torn tail: their write was never acknowledged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.ledger import batches
from mainspring.ledger.batches import Encoded
from mainspring.ledger.model import Failure, Heading, Prediction

MAGIC = b"mainspring predictions 2\n"
MAGIC_BEFORE = b"mainspring predictions 1\n"  # its payloads are lists of predictions
_HEADER = struct.Struct("<II")  # length of the payload in bytes, its CRC-32
_COUNT = struct.Struct(">BI")  # MessagePack's word for a list of so many
_PAIR = b"\x92"  # MessagePack's word for a list of two
_LIST = 0xDD
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[dict[int, Heading], list[Encoded]])
_batch_decoder = msgspec.msgpack.Decoder(Encoded)
_decoder_before = msgspec.msgpack.Decoder(list[Prediction])  # of segments that an older version left


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames read from a segment. Offsets are bytes from the file's beginning."""

    payloads: list[bytes]
    end: int  # behind the last whole frame
    torn: int  # bytes behind `end`
    damaged: int  # frames before `end` whose content is not what was written


def framed(headings: Mapping[int, Heading], encoded: Sequence[bytes]) -> bytes:
    """Return one frame of encoded batches and the headings they name."""
    payload = b"".join((_PAIR, _encoder.encode(headings), _COUNT.pack(_LIST, len(encoded)), *encoded))
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def counted(headings: Mapping[int, Heading], encoded: Sequence[bytes]) -> Iterator[tuple[str, int]]:
    """Yield the endpoint and the number of predictions of each encoded batch that has any."""
    for batch in map(_batch_decoder.decode, encoded):
        if batch.ids:
            yield headings[batch.heading].endpoint, len(batch.ids)


def failures_in(encoded: Sequence[bytes]) -> list[Failure]:
    """Return the failures of encoded batches."""
    return [failure for batch in map(_batch_decoder.decode, encoded) for failure in batch.failures]


def encode(predictions: Sequence[Prediction], failures: Sequence[Failure] = ()) -> bytes:
    """Return one frame."""
    headings: dict[Heading, int] = {}
    encoded = [
        batches.encode(batch, headings.setdefault(batch.heading, len(headings)))
        for batch in batches.batches_of(predictions)
    ]
    if failures:
        encoded.append(batches.encode_failures(failures, headings.setdefault(batches.NOTHING, len(headings))))
    return framed({number: heading for heading, number in headings.items()}, encoded)


def decode(payload: bytes) -> list[Prediction]:
    """Return the predictions of one frame's payload; errors as of `decode_all`."""
    return decode_all(payload)[0]


def decode_all(payload: bytes) -> tuple[list[Prediction], list[Failure]]:
    """Return the predictions and the failures of one frame's payload.

    Raises:
        Corrupt: It holds something else.
    """
    try:
        headings, found = _decoder.decode(payload)
    except msgspec.DecodeError:
        return _decode_before(payload), []
    try:
        rows = [row for batch in found for row in batches.predictions_of(headings[batch.heading], batch)]
        return rows, [failure for batch in found for failure in batch.failures]
    except (LookupError, ValueError) as error:
        raise Corrupt(f"A frame of predictions is inconsistent: {error!r}.") from error


def _decode_before(payload: bytes) -> list[Prediction]:
    try:
        return _decoder_before.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"A frame does not contain predictions: {error}.") from error


def scan(content: bytes, start: int) -> Frames:
    """Return the whole frames of `content`, which begins at offset `start` of its file."""
    payloads, damaged, position, end, wrong = [], 0, 0, 0, 0
    for length, checksum in _headers(content):
        position += _HEADER.size + length
        payload = content[position - length : position]
        if zlib.crc32(payload) == checksum:
            payloads.append(payload)
            damaged, end, wrong = damaged + wrong, position, 0
        else:
            # With nothing right behind it, it is a frame whose pages never reached the disk, or not all of them yet.
            wrong += 1
    return Frames(payloads, start + end, len(content) - end, damaged)


def _headers(content: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while position + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, position)
        position += _HEADER.size + length
        # A length of zero is a page that never reached the disk: no frame is empty.
        if length == 0 or position > len(content):
            return
        yield length, checksum
