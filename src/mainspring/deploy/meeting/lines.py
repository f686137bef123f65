"""Messages of a meeting: JSON in lines, over a connection."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from mainspring.core.errors import Unavailable
from mainspring.deploy.meeting.model import MOST

_SEND_S = 30.0  # for the other end to take a message


class Line:
    """A connection whose other end answers each message with one. A message is a JSON object."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rest = bytearray()  # read, and of no message yet

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone, or reads nothing.
        """
        self.socket.settimeout(_SEND_S)
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, within_s: float) -> dict[str, Any]:
        """Return the next message.

        Raises:
            OSError: The other end is gone, or sent no whole message within `within_s` seconds: the rest may follow.
            Unavailable: It sent no message.
        """
        until = time.monotonic() + within_s
        while b"\n" not in self.rest:
            if (left_s := until - time.monotonic()) <= 0:
                raise TimeoutError("no whole message came in time")
            self.socket.settimeout(left_s)
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionResetError("the connection was closed")
            self.rest += piece
            if len(self.rest) > MOST:
                raise Unavailable(f"A machine sent a line of more than {MOST} bytes.")
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"A machine sent what is no message: {error}.") from None
        if not isinstance(found, dict):
            raise Unavailable("A machine sent what is no message: it is no object.")
        return found

    def ask(self, message: Any, within_s: float) -> dict[str, Any]:
        """Send a message and return the answer; raises as `send` and `receive` do."""
        self.send(message)
        return self.receive(within_s)

    def close(self) -> None:
        self.socket.close()
