"""The body of a request within limits of size and time, which the HTTP server leaves to us, and compression."""

from __future__ import annotations

import asyncio
import zlib
from concurrent.futures import Executor

from mainspring.core.errors import Invalid, TooLarge, WrongEncoding
from mainspring.serving.http.message import Request

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's window bits
_FASTEST = 1  # zlib's level
MIN_COMPRESSED = 4096  # bytes; compressing less costs more than sending it
_INLINE = 16_384  # bytes; (de)compressing more would hold up the event loop


class Bodies:
    """Reads bodies.

    Args:
        max_bytes: The largest body, as sent and decompressed.
        threads: Pool that decompresses large bodies.
    """

    def __init__(self, *, max_bytes: int, threads: Executor) -> None:
        self._max_bytes = max_bytes
        self._threads = threads

    async def read(self, request: Request, align: int = 0) -> bytes | memoryview:
        """Return the whole body, decompressed.

        Args:
            align: As of `Request.whole`.

        Raises:
            Invalid: It is cut off, or no whole stream of its encoding.
            TooLarge: It has over `max_bytes`.
            TooSlow: It took too long to arrive.
            WrongEncoding: It is compressed in another way than gzip or deflate.
        """
        headers = request.headers
        encoding = (headers.get("content-encoding") or "identity").lower()
        if encoding not in (*_WINDOWS, "identity"):
            raise WrongEncoding("The body's Content-Encoding is not one of gzip, deflate, identity.")
        if not request.complete and int(headers.get("content-length") or 0) > self._max_bytes:
            raise _too_large(self._max_bytes)
        body = await request.whole(align)
        if encoding == "identity":
            return body
        if len(body) < _INLINE:
            return _inflated(body, encoding, self._max_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _inflated, body, encoding, self._max_bytes)


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


def _inflated(body: bytes | memoryview, encoding: str, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    try:
        content = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Invalid(f"The body is not {encoding}.") from None
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    if not inflater.eof or inflater.unused_data:
        raise Invalid(f"The body is not one complete {encoding} stream.")
    return content


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than {max_bytes} bytes.")
