"""Messages of a meeting: JSON in lines, over a connection or the pipe of a child process."""

from __future__ import annotations

import json
import socket
from typing import Any

from mainspring.core.errors import Unavailable
from mainspring.deploy.meeting.model import MOST


class Line:
    """A connection whose other end answers each message with one."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rest = bytearray()  # read, and of no message yet

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, within_s: float) -> Any:
        """Return the next message.

        Raises:
            OSError: The other end is gone, or sent nothing for `within_s` seconds.
            Unavailable: It sent no message.
        """
        self.socket.settimeout(within_s)
        while b"\n" not in self.rest:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionResetError("the connection was closed")
            self.rest += piece
            if len(self.rest) > MOST:
                raise Unavailable(f"A machine sent a line of more than {MOST} bytes.")
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError as error:
            raise Unavailable(f"A machine sent what is no message: {error}.") from None

    def ask(self, message: Any, within_s: float) -> Any:
        """Send a message and return the answer; raises as `send` and `receive` do."""
        self.send(message)
        return self.receive(within_s)

    def close(self) -> None:
        self.socket.close()
