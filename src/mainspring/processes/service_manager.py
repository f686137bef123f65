"""Messages to the service manager that started this process: sd_notify(3), a datagram to a socket that it names.

The manager waits for `READY=1`, and restarts the service where `WATCHDOG=1` fails to come. Without a socket nothing is
sent.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from mainspring.core.environment import manager_socket

_AT_LEAST = 2  # messages within the time that the watchdog waits


class Manager:
    """The service manager, if there is one."""

    def __init__(self) -> None:
        self._address, watchdog_us = manager_socket()
        self._every_s = watchdog_us / 1e6 / _AT_LEAST
        self._told_at = float("-inf")

    def ready(self) -> None:
        """Say that the service answers."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Say that the service is supervised, if it is time to. Call it often."""
        if self._every_s and time.monotonic() - self._told_at >= self._every_s:
            self._told_at = time.monotonic()
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(
                text.encode(), self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
            )
