"""A session of ONNX Runtime in a process of its own, for a model whose cost the values of a request decide.

`python -m mainspring.serving.adapters.apart FD` is that process. It gets the model through a socket, gets no
environment, works in a folder that is gone, may take no more memory than the limit beyond what the loaded model takes,
and ends when its parent does. A call that takes longer than the limit ends with the process; the next call starts
another. Messages are MessagePack after their length of eight bytes; nothing is pickled.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt, MainspringError
from mainspring.core.own_process import end_with_parent, kill, python_path, receive, send
from mainspring.serving.adapters.sessions import CallLimits, OnnxSession, open_session
from mainspring.serving.plane.executor import Array, ModelFailed, closed, first_line

_LOAD_S = 120.0


class _Value(msgspec.Struct, frozen=True, array_like=True):
    """An input or output of a graph."""

    name: str
    type: str
    shape: list[int | str | None] | None


class _Tensor(msgspec.Struct, frozen=True, array_like=True):
    name: str
    dtype: str  # as NumPy writes it; `O` is texts
    shape: tuple[int, ...]
    content: bytes | list[str]


class _Load(msgspec.Struct, frozen=True, array_like=True):
    content: bytes
    name: str
    threads: int
    memory_bytes: int


class _Loaded(msgspec.Struct, frozen=True, array_like=True):
    inputs: list[_Value]
    outputs: list[_Value]
    error: str = ""


class _Call(msgspec.Struct, frozen=True, array_like=True):
    fetches: list[str]
    feed: list[_Tensor]


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    outputs: list[_Tensor]
    error: str = ""


def _packed(name: str, array: Array) -> _Tensor:
    if array.dtype.hasobject:
        return _Tensor(name, "O", array.shape, array.ravel().tolist())
    return _Tensor(name, array.dtype.str, array.shape, array.tobytes())


def _unpacked(tensor: _Tensor) -> Array:
    if isinstance(tensor.content, bytes):
        return np.frombuffer(bytearray(tensor.content), tensor.dtype).reshape(tensor.shape)
    found = np.empty(len(tensor.content), np.object_)
    found[:] = tensor.content
    return found.reshape(tensor.shape)


class SessionApart:
    """An `OnnxSession` whose graph runs in another process. One call at a time; threads may share it.

    Raises:
        Corrupt: The model does not load.
    """

    def __init__(self, content: bytes, name: str, *, threads: int, limits: CallLimits) -> None:
        self._load = _Load(content, name, threads, limits.memory_bytes)
        self._seconds = limits.seconds
        self._running = threading.Lock()
        self._closed = False
        self._connection: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None  # ends the process; so does whoever collects this as garbage
        self._loaded = self._start()

    def get_inputs(self) -> Sequence[_Value]:
        return self._loaded.inputs

    def get_outputs(self) -> Sequence[_Value]:
        return self._loaded.outputs

    def run(self, fetches: Sequence[str], feed: Mapping[str, Array]) -> Sequence[Any]:
        call = _Call(list(fetches), [_packed(name, array) for name, array in feed.items()])
        with self._running:
            if self._closed:
                raise closed()
            if self._connection is None:
                self._start()
            answer = self._asked(call)
        if answer.error:
            raise ModelFailed(f"The model failed: {answer.error}")
        return [_unpacked(each) for each in answer.outputs]

    def close(self) -> None:
        self._closed = True
        self._stop()

    def _asked(self, call: _Call) -> _Answer:
        name, connection = self._load.name, self._connection
        if connection is None:
            raise closed()
        connection.settimeout(self._seconds)
        try:
            send(connection, call)
            answer = receive(connection, self._seconds, max(self._load.memory_bytes, 1 << 20))
            return msgspec.msgpack.decode(answer, type=_Answer)
        except TimeoutError:
            self._stop()
            raise ModelFailed(f"The model of {name} was stopped: it ran for {self._seconds:g} s.") from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self._stop()
            if self._closed:
                raise closed() from error
            raise ModelFailed(f"The process of model {name} ended: the model crashed, or ran out of memory.") from error

    def _start(self) -> _Loaded:
        ours, theirs = socket.socketpair()
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={
                    "PYTHONPATH": python_path(),
                    "OMP_NUM_THREADS": "1",  # of NumPy's own library, which would take memory for each processor
                },
            )
        self._connection = ours
        self._end = weakref.finalize(self, kill, child, ours)
        ours.settimeout(_LOAD_S)
        try:
            send(ours, self._load)
            loaded = msgspec.msgpack.decode(receive(ours, _LOAD_S), type=_Loaded)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self._stop()
            raise Corrupt(f"The model of {self._load.name} does not load in a separate process.") from error
        if loaded.error:
            self._stop()
            raise Corrupt(loaded.error)
        return loaded

    def _stop(self) -> None:
        self._connection = None
        self._end()


# The process


def _described(values: Sequence[Any]) -> list[_Value]:
    return [_Value(each.name, each.type, each.shape) for each in values]


def _limit(more_bytes: int) -> None:
    """Let no allocation succeed that would take more than so much beyond what the process has by now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _answered(session: OnnxSession, content: bytearray) -> _Answer:
    try:
        call = msgspec.msgpack.decode(content, type=_Call)
        found = session.run(call.fetches, {each.name: _unpacked(each) for each in call.feed})
        return _Answer([_packed(name, np.asarray(array)) for name, array in zip(call.fetches, found, strict=True)])
    except Exception as error:  # the runtime's own, or no memory
        return _Answer([], first_line(error))


def main() -> None:
    """Load a model and answer calls until the parent hangs up."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=end_with_parent, args=(connection.fileno(),), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="mainspring-model-") as empty:
        os.chdir(empty)
    load = msgspec.msgpack.decode(receive(connection), type=_Load)
    try:
        session = open_session(load.content, load.name, threads=load.threads, limits=CallLimits(float("inf")))
    except MainspringError as error:
        send(connection, _Loaded([], [], str(error)))
        return
    send(connection, _Loaded(_described(session.get_inputs()), _described(session.get_outputs())))
    _limit(load.memory_bytes)
    del load
    while True:
        send(connection, _answered(session, receive(connection)))


if __name__ == "__main__":
    main()
