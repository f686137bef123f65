"""The beginning of a process that runs foreign code: `python -P -m mainspring.core.confined FD MODULE`.

It is confined while it has one thread and has imported nothing but this; then MODULE's `main` gets the connection.
"""

from __future__ import annotations

import socket
import sys
import threading
from importlib import import_module

import msgspec

from mainspring.core.own_process import end_with_parent, receive
from mainspring.core.sandbox import Confinement, enforce


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    enforce(msgspec.msgpack.decode(receive(connection), type=Confinement))
    threading.Thread(target=end_with_parent, args=(connection.fileno(),), daemon=True).start()
    import_module(sys.argv[2]).main(connection)


if __name__ == "__main__":
    main()
