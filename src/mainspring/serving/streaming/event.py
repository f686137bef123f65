"""Events of a stream endpoint as a rule sees them, and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.core.time import format_instant

RESERVED = ("event_id", "at", "endpoint", "model", "version", "key", "outputs")
_encode = msgspec.json.Encoder(order="deterministic").encode


class StreamEvent(msgspec.Struct, frozen=True, gc=False):
    """A message as a rule sees it.

    Attributes:
        id: Endpoint, partition and offset; the same in every replay.
        at: Time of the event, UTC epoch microseconds.
        fields: Columns of the message; instants are UTC epoch microseconds.
        windows: Values of the endpoint's windows and sessions.
        features: Inputs of the model, by full name.
        outputs: Outputs of the model.
        late: True if it is older than the watermark.
    """

    id: str
    at: int
    fields: Mapping[str, Any]
    windows: Mapping[str, Any]
    features: Mapping[str, Any]
    outputs: Mapping[str, Any]
    late: bool = False


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An output that waits for its sinks.

    Attributes:
        event_id: Of the event; outputs are deduplicated by it.
        key: Bytes of the entity key.
        at: Time of the event, UTC epoch microseconds.
        keys: Key column -> value.
        outputs: Outputs of the model and of the rule.
    """

    event_id: str
    key: bytes
    at: int
    endpoint: str
    model: str
    version: str
    keys: dict[str, Any]
    outputs: dict[str, Any]

    def document(self) -> bytes:
        """Return the output as JSON; equal outputs give equal bytes."""
        return _encode(
            {
                "event_id": self.event_id,
                "at": format_instant(self.at),
                "endpoint": self.endpoint,
                "model": self.model,
                "version": self.version,
                "key": self.keys,
                "outputs": self.outputs,
            }
        )


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that was not processed, with the reason.

    Attributes:
        offset: As text: some logs have more than 64 bits.
        value: Its first bytes.
        at: Time at which the log accepted it, UTC epoch microseconds.
    """

    partition: int
    offset: str
    key: bytes | None
    value: bytes | None
    at: int
    reason: str


def event_id(endpoint: str, partition: int, offset: int) -> str:
    """Return the id of an event, which no other event of the topic has."""
    return f"{endpoint}-{partition}-{offset}"
