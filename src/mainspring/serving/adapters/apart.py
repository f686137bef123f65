"""Models in processes of their own: sessions of ONNX Runtime whose cost values of a request decide, and functions.

This module is the process of a session too (see `core.confined`). It gets the model through a socket and no
environment, may take no more memory than the limit beyond what the loaded model takes, reaches neither files nor the
network, and ends when its parent does. A call that takes longer than the limit ends with the process; the next call
starts another. Messages are MessagePack after their length of eight bytes; nothing is pickled.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mainspring.core.environment import FOR_SERVING, for_foreign_code
from mainspring.core.errors import Corrupt, Invalid, MainspringError
from mainspring.core.own_process import Child, python_path, receive, send
from mainspring.core.sandbox import Confinement, policy
from mainspring.registry.model import Code
from mainspring.serving.adapters.sessions import CallLimits, OnnxSession, open_session
from mainspring.serving.plane.executor import Array, ModelFailed, closed, first_line

_LOAD_S = 120.0
_RETRY_FIRST_S, _RETRY_LAST_S = 0.25, 10.0  # after the second end in a row
_ONE = ""  # the name of what a function returns that is no mapping


class _Value(msgspec.Struct, frozen=True, array_like=True):
    """An input or output of a graph."""

    name: str
    type: str
    shape: list[int | str | None] | None


class Tensor(msgspec.Struct, frozen=True, array_like=True):
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


class LoadFunction(msgspec.Struct, frozen=True, array_like=True):
    """A function of the code of the project in a folder."""

    code: Code
    root: str
    memory_bytes: int


class LoadedFunction(msgspec.Struct, frozen=True, array_like=True):
    error: str = ""
    fix: str = ""
    yields: bool = False  # whether it is a generator function


BEGIN, GO_ON, CLOSE = "begin", "go on", "close"


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A call; with a `step` one of a generator's, which has the number `stream` among those of its process."""

    fetches: list[str]  # of a session
    feed: list[Tensor]
    step: str = ""
    stream: int = 0


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Outputs, or why there are none; `invalid` if a function says that of its rows, `over` where a generator ended."""

    outputs: list[Tensor]
    error: str = ""
    invalid: bool = False
    fix: str = ""
    over: bool = False


def packed(name: str, array: Array) -> Tensor:
    if array.dtype.hasobject:
        return Tensor(name, "O", array.shape, array.ravel().tolist())
    return Tensor(name, array.dtype.str, array.shape, array.tobytes())


def unpacked(tensor: Tensor) -> Array:
    if isinstance(tensor.content, bytes):
        return np.frombuffer(bytearray(tensor.content), tensor.dtype).reshape(tensor.shape)
    found = np.empty(len(tensor.content), np.object_)
    found[:] = tensor.content
    return found.reshape(tensor.shape)


def answer_of(found: Any) -> Answer:
    """Return the answer that holds what a function returned: an array, or a mapping of them."""
    outputs = found if isinstance(found, Mapping) else {_ONE: found}
    return Answer([packed(str(name), np.asarray(array)) for name, array in outputs.items()])


def _most(limits: CallLimits) -> int:
    return max(limits.memory_bytes, 1 << 20)


class _Apart:
    """A process that answers calls, one at a time; threads may share it. It is started again after it ended.

    Args:
        name: Of the model, for messages.
        load: Its first message.
    """

    def __init__(self, name: str, child: Child, load: msgspec.Struct, limits: CallLimits) -> None:
        self._name = name
        self._child = child
        self._load = load
        self._limits = limits
        self._running = threading.Lock()
        self._closed = False
        self._ends = 0  # in a row
        self._why = ""  # of the last
        self._start_at = 0.0  # monotonic, s

    def close(self) -> None:
        self._closed = True
        self._child.stop()

    def _started(self) -> bytearray:
        try:
            return self._child.start(self._load, _LOAD_S)
        except (OSError, EOFError) as error:
            raise Corrupt(f"The model of {self._name} does not load in a separate process.") from error

    def _restart(self) -> None:
        self._started()

    def _asked(self, call: Call, *, again: bool = True) -> Answer:
        with self._running:
            if self._closed:
                raise closed()
            if not self._child.runs:
                if not again:
                    raise ModelFailed(f"The process of model {self._name} ended.")
                if time.monotonic() < self._start_at:
                    raise ModelFailed(f"{self._why} So it did {self._ends} times in a row: it is not started yet.")
                self._restart()
            try:
                answer = self._answer(call)
            except ModelFailed as error:
                self._ended(error.what)
                raise
            self._ends = 0
            return answer

    def _ended(self, why: str) -> None:
        """Have the next process wait, ever longer, if this one answered nothing either."""
        self._ends += 1
        self._why = why
        if self._ends > 1:
            wait_s = min(_RETRY_FIRST_S * 2.0 ** min(self._ends - 2, 16), _RETRY_LAST_S)
            self._start_at = time.monotonic() + wait_s

    def _answer(self, call: Call) -> Answer:
        seconds = self._limits.seconds
        try:
            return msgspec.msgpack.decode(self._child.ask(call, seconds), type=Answer)
        except TimeoutError:
            raise ModelFailed(f"The model of {self._name} was stopped: it ran for {seconds:g} s.") from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self._child.stop()
            if self._closed:
                raise closed() from error
            raise ModelFailed(
                f"The process of model {self._name} ended: the model crashed, or ran out of memory."
            ) from error


class SessionApart(_Apart):
    """An `OnnxSession` whose graph runs in another process.

    Raises:
        Corrupt: The model does not load.
    """

    def __init__(self, content: bytes, name: str, *, threads: int, limits: CallLimits) -> None:
        environment = {
            "PYTHONPATH": python_path(),
            "OMP_NUM_THREADS": "1",  # of NumPy's own library, which would take memory for each processor
        }
        load = _Load(content, name, threads, limits.memory_bytes)
        child = Child(name, __name__, environment, Confinement(policy()), most=_most(limits))
        super().__init__(name, child, load, limits)
        try:
            self._loaded = msgspec.msgpack.decode(self._started(), type=_Loaded)
        except msgspec.DecodeError as error:
            raise Corrupt(f"The model of {name} does not load in a separate process.") from error
        if self._loaded.error:
            self._child.stop()
            raise Corrupt(self._loaded.error)

    def get_inputs(self) -> Sequence[_Value]:
        return self._loaded.inputs

    def get_outputs(self) -> Sequence[_Value]:
        return self._loaded.outputs

    def run(self, fetches: Sequence[str], feed: Mapping[str, Array]) -> Sequence[Any]:
        answer = self._asked(Call(list(fetches), [packed(name, array) for name, array in feed.items()]))
        if answer.error:
            raise ModelFailed(f"The model failed: {answer.error}")
        return [unpacked(each) for each in answer.outputs]


class FunctionApart(_Apart):
    """A function of the project's code in another process, to be called with its inputs by name.

    Args:
        module: The process; it takes a `LoadFunction` and answers with a `LoadedFunction`.
        reads: Files and folders that it may read.
        hidden: Those among them that it may not.

    Raises:
        Corrupt: The function cannot be imported, or was changed.
    """

    def __init__(
        self,
        module: str,
        load: LoadFunction,
        limits: CallLimits,
        *,
        reads: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
    ) -> None:
        self.yields = False
        self._streams = 0
        environment = for_foreign_code({"PYTHONPATH": python_path()}, FOR_SERVING)
        confinement = Confinement(policy(), tuple(map(str, reads)), tuple(map(str, hidden)))
        child = Child(load.code.function, module, environment, confinement, most=_most(limits))
        super().__init__(load.code.function, child, load, limits)
        self._restart()

    def __call__(self, **arrays: Array) -> Any:
        return self._found(self._asked(Call([], _feed(arrays))))

    def events(self, **arrays: Array) -> Generator[Any, None, None]:
        """Yield what the function yields, each when it is asked for: between two it takes no time of its process."""
        with self._running:
            self._streams += 1
            number = self._streams
        answer = self._asked(Call([], _feed(arrays), BEGIN, number))
        try:
            while not answer.over:
                yield self._found(answer)
                answer = self._asked(Call([], [], GO_ON, number), again=False)
        finally:
            if not answer.over and not answer.error and self._child.runs and not self._closed:
                with suppress(MainspringError):
                    self._asked(Call([], [], CLOSE, number), again=False)

    def _found(self, answer: Answer) -> Any:
        if answer.invalid:  # what the function says of its rows
            raise Invalid(answer.error, fix=answer.fix or None)
        if answer.error:
            raise ModelFailed(f"The function {self._name} failed: {answer.error}")
        found = {each.name: unpacked(each) for each in answer.outputs}
        return found[_ONE] if found.keys() == {_ONE} else found

    def _restart(self) -> None:
        try:
            loaded = msgspec.msgpack.decode(self._started(), type=LoadedFunction)
        except msgspec.DecodeError as error:
            raise Corrupt(f"The function {self._name} does not load in a separate process.") from error
        if loaded.error:
            self._child.stop()
            raise Corrupt(loaded.error, fix=loaded.fix or None)
        self.yields = loaded.yields


def _feed(arrays: Mapping[str, Array]) -> list[Tensor]:
    return [packed(name, array) for name, array in arrays.items()]


# The process of a session


def _described(values: Sequence[Any]) -> list[_Value]:
    return [_Value(each.name, each.type, each.shape) for each in values]


def limit_memory(more_bytes: int) -> None:
    """Let no allocation of this process succeed that would take more than so much beyond what it has by now."""
    # A child of a confined process has that one's limit; other systems have no such file.
    with suppress(PermissionError, FileNotFoundError):
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + more_bytes if hard == resource.RLIM_INFINITY else min(now + more_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))  # for good


def _answered(session: OnnxSession, content: bytearray) -> Answer:
    try:
        call = msgspec.msgpack.decode(content, type=Call)
        found = session.run(call.fetches, {each.name: unpacked(each) for each in call.feed})
        return Answer([packed(name, np.asarray(array)) for name, array in zip(call.fetches, found, strict=True)])
    except Exception as error:  # the runtime's own, or no memory
        return Answer([], first_line(error))


def main(connection: socket.socket) -> None:
    """Load a model and answer calls until the parent hangs up."""
    load = msgspec.msgpack.decode(receive(connection), type=_Load)
    try:
        session = open_session(load.content, load.name, threads=load.threads, limits=CallLimits(float("inf")))
    except MainspringError as error:
        send(connection, _Loaded([], [], str(error)))
        return
    send(connection, _Loaded(_described(session.get_inputs()), _described(session.get_outputs())))
    limit_memory(load.memory_bytes)
    del load
    while True:
        send(connection, _answered(session, receive(connection)))
