"""The body of a request within limits of size and time, which the HTTP server leaves to us, and compression."""

from __future__ import annotations

import asyncio
import time
import zlib
from concurrent.futures import Executor
from typing import Any, Protocol

from granian.rsgi import ProtocolClosed

from mainspring.core.errors import Invalid
from mainspring.serving.plane.status import TooLarge, TooSlow, WrongEncoding

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's window bits
_FASTEST = 1  # zlib's level
MIN_COMPRESSED = 4096  # bytes; compressing less costs more than sending it
_INLINE = 16_384  # bytes; (de)compressing more would hold up the event loop


class Headers(Protocol):
    """Granian's headers, names in lower case."""

    def get(self, key: str) -> Any: ...
    def get_all(self, key: str) -> list[Any]: ...


class Bodies:
    """Reads bodies.

    Args:
        max_bytes: The largest body, as sent and decompressed.
        timeout_s: The longest a body may take to arrive, give or take a part of it.
        threads: Where large bodies are decompressed.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float, threads: Executor) -> None:
        self._max_bytes = max_bytes
        self._threads = threads
        self._patience = _Patience(timeout_s)

    async def read(self, headers: Headers, protocol: Any) -> bytes:
        """Return the whole body, decompressed.

        Raises:
            Invalid: It is cut off, or its length is no number.
            TooLarge: It has over `max_bytes`.
            TooSlow: It took over `timeout_s`.
            WrongEncoding: It is compressed in another way than gzip or deflate.
        """
        length, encoding = headers.get("content-length"), headers.get("content-encoding")
        if encoding is not None and encoding.lower() not in (*_WINDOWS, "identity"):
            raise WrongEncoding("The body's Content-Encoding is not one of gzip, deflate, identity.")
        if length is not None:
            if not (length.isascii() and length.isdigit()):
                raise Invalid("The Content-Length is no number.")
            if int(length) > self._max_bytes:
                raise _too_large(self._max_bytes)
        patience = self._patience
        task = patience.begin()
        try:
            body = await _chunked(protocol, self._max_bytes) if length is None else bytes(await protocol())
        except ProtocolClosed:
            raise Invalid("The body ended before it was whole.") from None
        except asyncio.CancelledError:
            patience.check(task)
            raise
        finally:
            patience.end(task)
        if encoding is None or (encoding := encoding.lower()) == "identity":
            return body
        if len(body) < _INLINE:
            return _inflated(body, encoding, self._max_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _inflated, body, encoding, self._max_bytes)


class _Patience:
    """Ends what takes longer than `timeout_s`. One timer looks at all that wait, which costs a tenth of one each
    (`asyncio.timeout`), and is late by up to a twentieth of the time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[asyncio.Task[Any], float] = {}  # in the order in which they came
        self._ended: set[asyncio.Task[Any]] = set()
        self._looking = False

    def begin(self) -> asyncio.Task[Any]:
        """Return the current task, which is cancelled if it does not come to `end` in time."""
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = time.monotonic()
        if not self._looking:
            self._look_later()
        return task

    def check(self, task: asyncio.Task[Any]) -> None:
        """Return if a task was cancelled by another.

        Raises:
            TooSlow: It took too long.
        """
        # Another may have cancelled it too; whoever did is to see it.
        if task in self._ended and task.uncancel() == 0:
            raise TooSlow(f"The body did not arrive within {self._timeout_s:g} s.") from None

    def end(self, task: asyncio.Task[Any]) -> None:
        self._since.pop(task, None)
        self._ended.discard(task)

    def _look_later(self) -> None:
        self._looking = True
        asyncio.get_running_loop().call_later(self._timeout_s / 20, self._look)

    def _look(self) -> None:
        late = time.monotonic() - self._timeout_s
        for task, since in list(self._since.items()):
            if since > late:
                break
            del self._since[task]
            self._ended.add(task)
            task.cancel()
        self._looking = False
        if self._since:
            self._look_later()


async def compressed(content: bytes, encoding: str, threads: Executor) -> bytes:
    """Return `content` as gzip or deflate."""
    if len(content) < _INLINE:
        return _deflated(content, encoding)
    return await asyncio.get_running_loop().run_in_executor(threads, _deflated, content, encoding)


def accepted(header: str | None) -> str | None:
    """Return how a caller wants to be answered by its `Accept-Encoding`: gzip, deflate, or as it is."""
    if not header:
        return None
    weights = {}
    for each in header.lower().split(","):
        name, _, weight = each.partition(";")
        weights[name.strip()] = weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in _WINDOWS if weights.get(name, weights.get("*", False))), None)


def _deflated(content: bytes, encoding: str) -> bytes:
    deflater = zlib.compressobj(_FASTEST, wbits=_WINDOWS[encoding])
    return deflater.compress(content) + deflater.flush()


async def _chunked(protocol: Any, max_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in protocol:
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _inflated(body: bytes, encoding: str, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    try:
        content = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Invalid(f"The body is not {encoding}.") from None
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    if not inflater.eof or inflater.unused_data:
        raise Invalid(f"The body is not one whole {encoding} stream.")
    return content


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body has more than {max_bytes} bytes.")
