"""Format of a segment: frames of `length, crc32, payload`, one per write, after the file's first line.

A frame is self-contained, and counts only if it is whole. Bytes of a dead writer behind its last whole frame are a torn
tail: their write was never acknowledged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.ledger import batches
from mainspring.ledger.batches import Encoded
from mainspring.ledger.model import Batch, Failure, Heading, KeptExplanation, Prediction

MAGIC = b"mainspring predictions 2\n"
MAGIC_BEFORE = b"mainspring predictions 1\n"  # its payloads are lists of predictions
_HEADER = struct.Struct("<II")  # length of the payload in bytes, its CRC-32
_COUNT = struct.Struct(">BI")  # MessagePack's prefix of a list with this many elements
_PAIR = b"\x92"  # MessagePack's prefix of a list of two
_LIST = 0xDD
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[dict[int, Heading], list[Encoded]])
_batch_decoder = msgspec.msgpack.Decoder(Encoded)
_decoder_before = msgspec.msgpack.Decoder(list[Prediction])  # header of segments of an older version


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames read from a segment. Offsets are bytes from the file's beginning."""

    payloads: list[bytes]
    end: int  # behind the last whole frame
    torn: int  # bytes behind `end`
    damaged: int  # frames before `end` with corrupted content


class Decoded(NamedTuple):
    """Content of one frame: batches with their headings, failures, and explanations."""

    batches: list[tuple[Heading, Batch | Encoded]]
    failures: list[Failure]
    explanations: list[KeptExplanation]


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


def explanations_in(encoded: Sequence[bytes]) -> list[KeptExplanation]:
    """Return the explanations of encoded batches."""
    return [each for batch in map(_batch_decoder.decode, encoded) for each in batch.explanations]


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
        Corrupt: It has other content.
    """
    found = decode_batches(payload)
    return [row for heading, batch in found.batches for row in batches.predictions_of(heading, batch)], found.failures


def decode_explanations(payload: bytes) -> list[KeptExplanation]:
    """Return the explanations of one frame's payload; errors as of `decode_all`."""
    return decode_batches(payload).explanations


def decode_batches(payload: bytes) -> Decoded:
    """Return the content of one frame's payload.

    Raises:
        Corrupt: It has other content.
    """
    try:
        headings, encoded = _decoder.decode(payload)
    except msgspec.DecodeError:
        return Decoded([(batch.heading, batch) for batch in batches.batches_of(_decode_before(payload))], [], [])
    try:
        found: list[tuple[Heading, Batch | Encoded]] = []
        for batch in encoded:
            batches.check(headings[batch.heading], batch)
            found.append((headings[batch.heading], batch))
    except (LookupError, ValueError) as error:
        raise Corrupt(f"A frame of predictions is inconsistent: {error!r}.") from error
    failures = [failure for batch in encoded for failure in batch.failures]
    return Decoded(found, failures, [each for batch in encoded for each in batch.explanations])


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
            # With no valid frame behind it, its pages have not reached the disk, or not all of them.
            wrong += 1
    return Frames(payloads, start + end, len(content) - end, damaged)


def _headers(content: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while position + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, position)
        position += _HEADER.size + length
        # A length of 0 is a page that never reached the disk, since no frame is empty.
        if length == 0 or position > len(content):
            return
        yield length, checksum
