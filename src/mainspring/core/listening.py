"""Sockets to listen on. An address is claimed by binding it without SO_REUSEPORT, so a second claim fails.

Several processes of ours serve one address with a socket each, in one SO_REUSEPORT group. They inherit the sockets from
a process that outlives them, so connections that are not accepted yet survive each of them. A filter in the kernel
selects the members that get new connections: only running ones, and no foreign socket that joined later (why:
docs/adr/0008-supervisor-and-death.md).
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Sequence

from mainspring.core.errors import Conflict
from mainspring.core.settings import Address

BACKLOG = 1024
_ATTACH_FILTER = 51  # SO_ATTACH_REUSEPORT_CBPF, which the socket module does not define
_LOAD_RANDOM, _RANDOM, _MODULO, _IF_EQUAL, _RETURN = 0x20, 0xFFFFF000 + 56, 0x94, 0x15, 0x06  # linux/bpf_common.h


def listen(address: Address, setting: str) -> socket.socket:
    """Return a socket that listens on `address`.

    Args:
        setting: The name of the setting that chooses it, for the message.

    Raises:
        Conflict: Another process listens there, or the address cannot be bound.
    """
    bound = _bind(address, setting)
    bound.listen(BACKLOG)
    return bound


def check_free(address: Address, setting: str) -> None:
    """Raise if `address` is in use, as `listen` does."""
    _bind(address, setting).close()


def hold(address: Address, setting: str) -> socket.socket:
    """Return a socket that reserves `address` for processes of ours which listen there by SO_REUSEPORT; raises as
    `listen` does. It does not listen itself, so it gets no connections.
    """
    check_free(address, setting)
    return _bind(address, setting, shared=True)


def listen_together(address: Address, setting: str, count: int) -> list[socket.socket]:
    """Return `count` sockets that share the connections to `address`; raises as `listen` does.

    If the kernel does not distribute connections (only Linux does), all are duplicates of one socket, and the fastest
    process accepts.
    """
    if count == 1:
        return [listen(address, setting)]
    if sys.platform != "linux":
        first = listen(address, setting)
        return [first, *(first.dup() for _ in range(count - 1))]
    check_free(address, setting)
    found: list[socket.socket] = []
    for _ in range(count):
        found.append(_bind(address, setting, shared=True))
        found[-1].listen(BACKLOG)
    steer(found, range(count))
    return found


def steer(listeners: Sequence[socket.socket], chosen: Sequence[int]) -> None:
    """Distribute new connections at random among the `chosen` of `listeners`, which `listen_together` made."""
    if len(listeners) == 1 or sys.platform != "linux":
        return
    # A classic BPF program: a random number modulo the number of chosen members, and the position of the member for
    # each remainder.
    program = [(_LOAD_RANDOM, 0, 0, _RANDOM), (_MODULO, 0, 0, len(chosen))]
    for remainder, place in enumerate(chosen):
        program += [(_IF_EQUAL, 0, 1, remainder), (_RETURN, 0, 0, place)]
    program.append((_RETURN, 0, 0, chosen[0]))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    described = struct.pack("HP", len(program), ctypes.addressof(code))
    listeners[0].setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)


def _bind(address: Address, setting: str, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise Conflict(
            f"Cannot listen on {address.host}:{address.port}: {error.strerror}.",
            fix=f"stop the program that uses it, or run `mainspring up --{setting} {address.host}:PORT`.",
        ) from error
    return bound
