"""The process of a function that serves as a model: `python -m mainspring.project.function_process FD`.

It is confined before it imports the function: it reads the project's files but its state, and has no network.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.own_process import end_with_parent, receive, send
from mainspring.core.sandbox import enforce
from mainspring.project.definitions.functions import load_code
from mainspring.serving.adapters.apart import (
    Answer,
    Call,
    LoadedFunction,
    LoadFunction,
    answer_of,
    limit_memory,
    unpacked,
)
from mainspring.serving.plane.executor import first_line


def _answered(function: Any, call: Call) -> Answer:
    arrays = {each.name: unpacked(each) for each in call.feed}
    for array in arrays.values():
        array.flags.writeable = False
    try:
        return answer_of(function(**arrays))
    except MainspringError as error:
        return Answer([], error.what, kind=type(error).__name__, fix=error.fix or "")
    except Exception as error:
        return Answer([], f"{type(error).__name__}: {first_line(error)}")


def main() -> None:
    """Import a function and answer calls until the parent hangs up."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    load = msgspec.msgpack.decode(receive(connection), type=LoadFunction)
    try:
        enforce(load.policy, [Path(load.root)], hidden=[Path(load.state)])
        threading.Thread(target=end_with_parent, args=(connection.fileno(),), daemon=True).start()
        function = load_code(Path(load.root), load.code)
    except MainspringError as error:
        send(connection, LoadedFunction(error.what, error.fix or ""))
        return
    send(connection, LoadedFunction())
    limit_memory(load.memory_bytes)
    while True:
        send(connection, _answered(function, msgspec.msgpack.decode(receive(connection), type=Call)))


if __name__ == "__main__":
    main()
