"""The body of a request within limits of size and time, which the HTTP server leaves to us, and compression."""

from __future__ import annotations

import asyncio
import zlib
from concurrent.futures import Executor
from typing import Any, Protocol

from granian.rsgi import ProtocolClosed

from mainspring.core.errors import Invalid
from mainspring.serving.status import TooLarge, TooSlow, WrongEncoding

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's window bits
_FASTEST = 1  # zlib's level
MIN_COMPRESSED = 4096  # bytes; compressing less costs more than sending it
_INLINE = 16_384  # bytes; (de)compressing more would hold up the event loop


class Headers(Protocol):
    """Granian's headers, names in lower case."""

    def get(self, key: str) -> Any: ...
    def get_all(self, key: str) -> list[Any]: ...


async def read_body(headers: Headers, protocol: Any, *, max_bytes: int, timeout_s: float, threads: Executor) -> bytes:
    """Return the whole body, decompressed.

    Args:
        threads: Where large bodies are decompressed.

    Raises:
        Invalid: It is cut off; or its length is given twice, or is no number: what stands between two servers may read
            it differently.
        TooLarge: It has over `max_bytes`, as sent or decompressed.
        TooSlow: It took over `timeout_s`.
        WrongEncoding: It is compressed in another way than gzip or deflate.
    """
    length, transfer = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and transfer is not None:
        raise Invalid("The request has both Content-Length and Transfer-Encoding.")
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.lower() not in (*_WINDOWS, "identity"):
        raise WrongEncoding("The body's Content-Encoding is not one of gzip, deflate, identity.")
    try:
        async with asyncio.timeout(timeout_s):
            body = await (_chunked(protocol, max_bytes) if length is None else _sized(protocol, length, max_bytes))
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {timeout_s:g} s.") from None
    except ProtocolClosed:
        raise Invalid("The body ended before it was whole.") from None
    if encoding is None or encoding == "identity":
        return body
    if len(body) < _INLINE:
        return _inflated(body, encoding.lower(), max_bytes)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, _inflated, body, encoding.lower(), max_bytes)


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


async def _sized(protocol: Any, length: str, max_bytes: int) -> bytes:
    if not (length.isascii() and length.isdigit()):
        raise Invalid("The Content-Length is no number.")
    if int(length) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(await protocol())


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
