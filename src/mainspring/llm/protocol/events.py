"""Server-sent events (WHATWG HTML, 9.2), as they come from an upstream and go to a caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mainspring.core.errors import TooLarge

_LONGEST = 8 << 20  # bytes of one event
_END = 3  # bytes in which the end of one may begin


class Frame(NamedTuple):
    """One event: its name, empty for none; its data; and its bytes with the empty line at the end."""

    name: bytes
    data: bytes
    raw: bytes


class Frames:
    """Parser of a stream that comes in any pieces. Comments, and events without data, are left out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the events that are complete now.

        Raises:
            TooLarge: An event is larger than 8 MiB.
        """
        if self._rest:  # an event that comes in many pieces is searched and copied once
            near = self._rest[-_END:] + data
            self._rest += data
            if b"\n\n" not in near and b"\n\r\n" not in near:
                return self._complete(())
            data = bytes(self._rest)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *blocks, rest = data.split(b"\n\n")
        if rest or self._rest:
            self._rest = bytearray(rest)
        return self._complete(blocks)

    def _complete(self, blocks: Sequence[bytes]) -> list[Frame]:
        if len(self._rest) > _LONGEST:
            raise TooLarge(f"An event is larger than {_LONGEST} bytes.")
        found = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                found.append(Frame(b"", block[6:], block + b"\n\n"))
            elif (frame := _frame(block.lstrip(b"\n"))) is not None:
                found.append(frame)
        return found


def _frame(block: bytes) -> Frame | None:
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Frame(name, b"\n".join(data), block + b"\n\n") if data else None
