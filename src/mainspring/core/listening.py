"""Sockets to listen on. An address is taken by binding it without SO_REUSEPORT: who comes second, is told so.

Several processes serve one address by listening on one socket, which they inherit: a connection that nobody has
accepted yet outlives each of them (why: docs/adr/0008-supervisor-and-death.md).
"""

from __future__ import annotations

import errno
import socket

from mainspring.core.errors import Conflict
from mainspring.core.settings import Address

BACKLOG = 1024


def listen(address: Address, setting: str) -> socket.socket:
    """Return a socket that listens on `address`.

    Args:
        setting: The name of the setting that chooses it, for the message.

    Raises:
        Conflict: Somebody else listens there, or the address cannot be had.
    """
    bound = _bind(address, setting)
    bound.listen(BACKLOG)
    return bound


def check_free(address: Address, setting: str) -> None:
    """Return if nobody listens on `address`; raises as `listen` does."""
    _bind(address, setting).close()


def _bind(address: Address, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise Conflict(
            f"Cannot listen on {address.host}:{address.port}: {error.strerror}.",
            fix=f"stop what uses it, or run `mainspring up --{setting} {address.host}:PORT`.",
        ) from error
    return bound
