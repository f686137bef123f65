"""Server-sent events of an answer in parts.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mainspring.client.failures import ServerFailed, refusal
from mainspring.client.talk import Answer

_LONGEST = 64 << 20  # bytes of an event


class EventReader:
    """Reads the events of one answer from its pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that a piece completes.

        Raises:
            MainspringError: The server ended the answer with an error, which it names.
            ServerFailed: The answer is not one in events.
        """
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > _LONGEST:
            raise ServerFailed(f"An event of the server has more than {_LONGEST:,} bytes.")
        for block in blocks:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            if b"data" not in fields:
                continue
            if fields.get(b"event") == b"error":
                raise refusal(Answer(500, {}, fields[b"data"]))
            yield _object(fields[b"data"])


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict):
        raise ServerFailed(f"An event of the server is not a JSON object: {data[:100].decode(errors='replace')!r}.")
    return found


def question(path: str, inputs: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return the arguments of httpx's request for an answer in events.

    Args:
        timeout_s: Longest wait for an event.
    """
    content = msgspec.json.encode(dict(inputs), enc_hook=lambda value: value.tolist())
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    return {"method": "POST", "url": path, "content": content, "headers": headers, "timeout": timeout_s}
