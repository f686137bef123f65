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
from mainspring.registry.providers import expect_provider, options_of, package_of
from mainspring.serving.adapters.binding import Bindings
from mainspring.serving.devices.device import ON_GPUS, DeviceUnusable, Opening
from mainspring.serving.plane.executor import Array, ModelFailed, first_line

# Where ONNX Runtime looks for a tensor's data outside its file, were there such a file: below this there is none.
_NOWHERE = os.devnull
_PROCESSOR = "CPUExecutionProvider"
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


class Session:
    """A session in this process.

    Attributes:
        raw: The runtime's own.
        bindings: Through which calls go; `None`: each has memory of its own.
    """

    def __init__(self, session: Any, name: str, limits: CallLimits, *, by_time: bool = False) -> None:
        self.raw = session
        self.bindings: Bindings | None = None
        self._by_time = by_time
        self._name = name
        self._seconds = limits.seconds
        self._watch = _watching()
        self.get_inputs = session.get_inputs
        self.get_outputs = session.get_outputs

    def run(self, fetches: Sequence[str], feed: Mapping[str, Array]) -> Sequence[Any]:
        limit_s = min(_LOOP_S, self._seconds) if _on_a_loop() else self._seconds
        call = _Call(None if self._by_time else self._watch.clock(), limit_s, ort.RunOptions())
        calls, key = self._watch.calls, id(call)
        calls[key] = call
        try:
            found = self._found(fetches, feed, call.options)
        except Exception as error:
            if call.stopped:
                raise ModelFailed(f"The model of {self._name} was stopped: it ran for {limit_s:g} s.") from error
            raise
        finally:
            del calls[key]
        return found

    def _found(self, fetches: Sequence[str], feed: Mapping[str, Array], options: Any) -> Sequence[Any]:
        if self.bindings is None:
            found: Sequence[Any] = self.raw.run(fetches, feed, options)
            return found
        options.add_run_config_entry("gpu_graph_id", "-1")  # the runtime asks for it, and takes half a ms to miss it
        return self.bindings.run(feed, len(next(iter(feed.values()))), options)

    def close(self) -> None:
        self.bindings = None
        del self.raw, self.get_inputs, self.get_outputs


def open_session(
    content: bytes, name: str, *, threads: int = 1, limits: CallLimits | None = None, provider: str = ""
) -> Session:
    """Return a session of ONNX Runtime on this processor, which reads nothing but `content`.

    Args:
        provider: Execution provider that runs the whole graph instead: an operator that it does not have is refused,
            not run by the processor.

    Raises:
        Corrupt: The model does not load.
        Invalid: The provider is not here.
    """
    expect_provider(provider, available_providers(), name)
    options = _options(threads)
    if provider:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    chosen = provider or _PROCESSOR
    try:
        session = ort.InferenceSession(content, options, providers=[(chosen, options_of(chosen, threads))])
    except Exception as error:  # the runtime's own errors share no other base
        raise Corrupt(f"The model of {name} does not load: {first_line(error)}") from error
    return Session(session, name, limits or CallLimits())


def available_providers() -> Sequence[str]:
    """Return the providers that this runtime was built with."""
    return tuple(ort.get_available_providers())


def open_on(
    content: bytes, name: str, on: Opening, *, limits: CallLimits | None = None, whole: bool = False
) -> Session:
    """Return a session on a device, which reads nothing but `content`. Its calls are limited by time, of which the
    device's is a part.

    Args:
        whole: Whether an operator that the device does not have is refused, not run by the processor.

    Raises:
        DeviceUnusable: The runtime lacks the device's provider, or would compute everything on the processor, or the
            model does not load there.
    """
    wanted = on.providers[0][0]
    if wanted not in available_providers():
        raise DeviceUnusable(
            f"The model of {name} is for {on.kind}, and this ONNX Runtime has no {wanted}.",
            fix=f"install {package_of(wanted)} in place of onnxruntime (docs/howto/serve-on-gpus.md).",
        )
    if on.kind in ON_GPUS:
        _find_libraries()
    options = _options(1)
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        providers = [(provider, dict(told)) for provider, told in on.providers]
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise DeviceUnusable(f"The model of {name} does not load on {on.kind}: {first_line(error)}") from error
    if wanted not in session.get_providers():
        raise DeviceUnusable(
            f"ONNX Runtime could not begin {wanted} for {name}, and took the processor.",
            fix="see that the driver and the libraries of its release are there (docs/howto/serve-on-gpus.md).",
        )
    return Session(session, name, limits or CallLimits(), by_time=True)


@cache
def _find_libraries() -> None:
    """Load CUDA's and cuDNN's libraries from their Python packages, where these are installed."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls(msvc=False)


def nodes_by_provider(session: Any) -> dict[str, int] | None:
    """Return provider -> number of nodes that it got; `None` where this release of ONNX Runtime does not tell."""
    told = getattr(session, "get_provider_graph_assignment_info", None)
    if told is None:
        return None
    found: dict[str, int] = {}
    for part in told():
        found[part.ep_name] = found.get(part.ep_name, 0) + len(part.get_nodes())
    return found


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    return options
