"""Sessions of ONNX Runtime in this process, whose calls end: a thread of its own stops those that take too long."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import onnxruntime as ort

from mainspring.core.errors import Corrupt
from mainspring.registry.providers import expect_provider
from mainspring.serving.plane.executor import Array, ModelFailed, first_line

# Where ONNX Runtime looks for a tensor's data outside its file, were there such a file: below this there is none.
_NOWHERE = os.devnull
_PROCESSOR, _OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
_LOOP_S = 1.0  # of processor time for a call on an event loop, which serves nobody else meanwhile
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits of one call of a model."""

    seconds: float = 10.0
    memory_bytes: int = 2 << 30  # beside the model itself; of a model in a process of its own


class OnnxSession(Protocol):
    """The part of a session of ONNX Runtime that an executor uses."""

    def get_inputs(self) -> Sequence[Any]:
        """Return the graph's inputs: objects with `name`, `type` and `shape`."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Return the graph's outputs."""
        ...

    def run(self, fetches: Sequence[str], feed: Mapping[str, Array]) -> Sequence[Any]:
        """Return the outputs named `fetches`.

        Raises:
            ModelFailed: It was stopped. Others, the runtime's own: it failed.
        """
        ...

    def close(self) -> None:
        """Release the model."""
        ...


@dataclass(slots=True)
class _Call:
    """A call that is under way in a thread."""

    clock: int | None  # of the thread's processor time; `None` where the platform has none
    limit_s: float
    options: Any
    seen_s: float | None = None  # the clock when the call was first seen
    stopped: bool = False


class _Watch:
    """Stops calls by ONNX Runtime's terminate flag, which it looks at before each node.

    What counts is the processor time of the calling thread: on a busy machine, or after the process was stopped, a call
    that waited is not a call that takes long.
    """

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self._clocks = threading.local()
        threading.Thread(target=self._look, name="model-watch", daemon=True).start()

    def clock(self) -> int | None:
        """Return the clock of the calling thread."""
        known: int | None = getattr(self._clocks, "own", None)
        if known is None and hasattr(time, "pthread_getcpuclockid"):
            known = self._clocks.own = time.pthread_getcpuclockid(threading.get_ident())
        return known

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            for call in list(self.calls.values()):
                try:
                    now_s = time.monotonic() if call.clock is None else time.clock_gettime(call.clock)
                except OSError:  # its thread has ended
                    continue
                if call.seen_s is None:
                    call.seen_s = now_s
                elif now_s - call.seen_s >= call.limit_s:
                    call.stopped = True
                    call.options.terminate = True


@cache
def _watching() -> _Watch:
    return _Watch()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Session:
    def __init__(self, session: Any, name: str, limits: CallLimits) -> None:
        self._session = session
        self._name = name
        self._seconds = limits.seconds
        self._watch = _watching()
        self.get_inputs = session.get_inputs
        self.get_outputs = session.get_outputs

    def run(self, fetches: Sequence[str], feed: Mapping[str, Array]) -> Sequence[Any]:
        limit_s = min(_LOOP_S, self._seconds) if _on_a_loop() else self._seconds
        call = _Call(self._watch.clock(), limit_s, ort.RunOptions())
        calls, key = self._watch.calls, id(call)
        calls[key] = call
        try:
            found: Sequence[Any] = self._session.run(fetches, feed, call.options)
        except Exception as error:
            if call.stopped:
                raise ModelFailed(f"The model of {self._name} was stopped: it ran for {limit_s:g} s.") from error
            raise
        finally:
            del calls[key]
        return found

    def close(self) -> None:
        del self._session, self.get_inputs, self.get_outputs


def open_session(
    content: bytes, name: str, *, threads: int = 1, limits: CallLimits | None = None, provider: str = ""
) -> OnnxSession:
    """Return a session of ONNX Runtime on this processor, which reads nothing but `content`.

    Args:
        provider: Execution provider that runs the whole graph instead: an operator that it does not have is refused,
            not run by the processor.

    Raises:
        Corrupt: The model does not load.
        Invalid: The provider is not here.
    """
    expect_provider(provider, ort.get_available_providers(), name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    if provider:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings = {"device_type": "CPU", "num_of_threads": str(threads)} if provider == _OPENVINO else {}
    try:
        session = ort.InferenceSession(content, options, providers=[(provider or _PROCESSOR, settings)])
    except Exception as error:  # the runtime's own errors share no other base
        raise Corrupt(f"The model of {name} does not load: {first_line(error)}") from error
    return _Session(session, name, limits or CallLimits())
