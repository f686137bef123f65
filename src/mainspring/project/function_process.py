"""The process of a function that serves as a model: see `core.confined`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.own_process import receive, send
from mainspring.project.definitions.functions import load_code
from mainspring.serving.adapters.apart import (
    BEGIN,
    CLOSE,
    Answer,
    Call,
    LoadedFunction,
    LoadFunction,
    answer_of,
    limit_memory,
    unpacked,
)
from mainspring.serving.plane.executor import first_line, last_of

Streams = dict[int, Iterator[Any]]


def _answered(function: Any, call: Call, streams: Streams) -> Answer:
    arrays = {each.name: unpacked(each) for each in call.feed}
    for array in arrays.values():
        array.flags.writeable = False
    try:
        if call.step:
            return _stepped(function, call, arrays, streams)
        return answer_of(last_of(function(**arrays)))
    except Invalid as error:
        return Answer([], error.what, invalid=True, fix=error.fix or "")
    except Exception as error:
        return Answer([], f"{type(error).__name__}: {first_line(error)}")


def _stepped(function: Any, call: Call, arrays: dict[str, Any], streams: Streams) -> Answer:
    if call.step == BEGIN:
        streams[call.stream] = iter(function(**arrays))
    stream = streams.pop(call.stream, None)
    if stream is None:
        return Answer([], "Its process was started again.")
    if call.step == CLOSE:
        if hasattr(stream, "close"):
            stream.close()
        return Answer([], over=True)
    try:
        answer = answer_of(next(stream))
    except StopIteration:
        return Answer([], over=True)
    streams[call.stream] = stream  # of one that failed nothing is kept
    return answer


def main(connection: socket.socket) -> None:
    """Import a function and answer calls until the parent hangs up."""
    load = msgspec.msgpack.decode(receive(connection), type=LoadFunction)
    try:
        function = load_code(Path(load.root), load.code)
    except MainspringError as error:
        send(connection, LoadedFunction(error.what, error.fix or ""))
        return
    send(connection, LoadedFunction(yields=isgeneratorfunction(function)))
    streams: Streams = {}
    limit_memory(load.memory_bytes)
    while True:
        send(connection, _answered(function, msgspec.msgpack.decode(receive(connection), type=Call), streams))
