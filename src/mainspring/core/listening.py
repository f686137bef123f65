"""Whether an address can be listened on. Granian shares ports (SO_REUSEPORT): two servers would answer by turns."""

from __future__ import annotations

import errno
import socket

from mainspring.core.errors import Conflict
from mainspring.core.settings import Address


def check_free(address: Address, setting: str) -> None:
    """Return if nobody listens on `address`.

    Args:
        setting: The name of the setting that chooses it, for the message.

    Raises:
        Conflict: Somebody does, or the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            raise Conflict(
                f"Cannot listen on {address.host}:{address.port}: {error.strerror}.",
                fix=f"stop what uses it, or run `mainspring up --{setting} {address.host}:PORT`.",
            ) from error
