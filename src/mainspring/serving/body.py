"""The body of a request within limits of size and time, which the HTTP server leaves to us."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Protocol

from mainspring.core.errors import Invalid
from mainspring.serving.status import TooLarge, TooSlow, WrongEncoding

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's window bits


class Headers(Protocol):
    """Granian's headers, names in lower case."""

    def get(self, key: str) -> Any: ...


async def read_body(headers: Headers, protocol: Any, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the whole body, decompressed.

    Raises:
        Invalid: Its length is given twice, or is no number: what stands between two servers may read it differently.
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
    return body if encoding is None or encoding == "identity" else _inflated(body, encoding.lower(), max_bytes)


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
