"""Progress of a stream endpoint in one partition, and the record of a batch from which it can be replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

NEVER = -(1 << 62)


class Progress(msgspec.Struct, frozen=True):
    """Place of an endpoint in one partition, and counts of messages since its beginning.

    Attributes:
        next: Offset of the next message, as text: some logs have more than 64 bits.
        newest: Time of the newest event, UTC epoch microseconds.
        batch: Number of batches.
        seq: Number of outputs and dead letters that were put into the outbox.
        accepted_at: Time at which the log accepted the last message, UTC epoch microseconds.
        duplicates: Events that were there before.
        clamped: Events whose stored features are of a later instant.
        at: Time of the last commit by the machine's clock, UTC epoch microseconds.
    """

    next: str
    newest: int = NEVER
    batch: int = 0
    seq: int = 0
    accepted_at: int = 0
    processed: int = 0
    emitted: int = 0
    late: int = 0
    dead: int = 0
    duplicates: int = 0
    clamped: int = 0
    version: str = ""
    at: int = 0

    @property
    def offset(self) -> int:
        return int(self.next)


class Made(msgspec.Struct, array_like=True, kw_only=True):
    """The version that predicted, and by which probability a rollout assigned it; an empty rollout is none."""

    model: str
    version: str
    bundle: str
    rollout: str = ""
    weight: float = 1.0


class Part(Made, array_like=True, kw_only=True):
    """Events of a batch that one version predicted.

    Attributes:
        rows: Their places among the events of the batch, ascending.
        features: Inputs of the model by name, each of shape (rows,).
        sent: Keys and fields of the requests, as `features`.
        outputs: Of the model, as `features`.
        units: Hash of each event's unit; without a rollout empty.
    """

    rows: Sequence[int]
    features: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str]]
    sent: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]
    units: Sequence[int] = ()


class Lost(Made, array_like=True, kw_only=True):
    """A message of a rollout that was given up, as a failure of its version.

    Attributes:
        kind: Name of the error.
    """

    offset: str
    at: int
    unit: int
    kind: str


class BatchRecord(msgspec.Struct, array_like=True):
    """One batch: what it began with, and what it read from outside the stream.

    Attributes:
        before: Progress before it.
        until: Offset behind its last message, as text.
        undo: Key -> bytes of its state before, None where it had none.
        offsets: Of the predicted events, as text.
        at: Times of those events, UTC epoch microseconds.
        parts: Versions that predicted, each with its events.
        failed: Offset -> reason, of messages that were given up because processing them failed.
        lost: Those of them that count as failures of a rollout's version.
        digest: Of the outputs and dead letters, to compare a replay with.
        latency_us: From the log's acceptance of its last message to the commit.
        erased: Whether an erasure removed something of it, so that it cannot be replayed.
        sealed: Envelope of the whole record, where it is encrypted; nothing else of it but `before`, `until` and the
            states that expired is here then.
    """

    before: Progress
    until: str
    undo: dict[bytes, bytes | None]
    offsets: list[str] = []
    at: list[int] = []
    parts: list[Part] = []
    failed: dict[str, str] = {}
    digest: bytes = b""
    latency_us: int = 0
    lost: list[Lost] = []
    erased: bool = False
    sealed: bytes = b""


encode_progress = msgspec.msgpack.Encoder().encode
decode_progress = msgspec.msgpack.Decoder(Progress).decode
encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(BatchRecord).decode


def encode_starts(starts: Mapping[int, int]) -> bytes:
    """Return offsets by partition as bytes, as texts: they may be larger than an integer of msgpack."""
    return msgspec.msgpack.encode({number: str(offset) for number, offset in starts.items()})


def decode_starts(content: bytes) -> dict[int, int]:
    return {number: int(text) for number, text in msgspec.msgpack.decode(content, type=dict[int, str]).items()}
