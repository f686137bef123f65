"""Reading of requests by llhttp, strictly: their heads, within limits of size; their bodies pass through.

What two servers could read differently is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from mainspring.serving.http.message import Head, Headers

MOST_HEADERS = 100


class Refusal(Exception):
    """Error: a peer's input is no request that may be read. Nothing more of it is read."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class HeadReader:
    """Reader of the requests of one connection.

    Args:
        begun: Called with the head of each request.
        on_body: Called with each part of its body.
        on_message_complete: Called at its end.
        most_bytes: Largest size of a head.
        secure: Whether the connection is encrypted.

    Attributes:
        whole: Whether no head is being read.
    """

    __slots__ = (
        *("_begun", "_count", "_headers", "_most_bytes", "_parser", "_secure", "_size", "_target", "_unfinished"),
        *("on_body", "on_message_complete", "whole"),
    )

    def __init__(
        self,
        begun: Callable[[Head], None],
        on_body: Callable[[bytes], None],
        on_message_complete: Callable[[], None],
        *,
        most_bytes: int,
        secure: bool,
    ) -> None:
        self._begun, self.on_body, self.on_message_complete = begun, on_body, on_message_complete
        self._most_bytes, self._secure = most_bytes, secure
        self.whole = True
        self._headers = Headers()
        self._target = b""
        self._size = self._count = self._unfinished = 0
        self._parser: Any = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            Refusal: This is not valid HTTP/1.1, or a head is too large.
            HttpParserUpgrade: What follows is of another protocol.
        """
        goes_on = not self.whole
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise
        except HttpParserError as error:
            if isinstance(error.__context__, Refusal):  # raised by a callback below
                raise error.__context__ from None
            raise Refusal(400, f"The request is not valid HTTP/1.1: {error}.") from None
        if goes_on and not self.whole:  # lines of which the parser may not have told yet
            self._unfinished += len(data)
            self._check()

    def renew(self) -> None:
        """Wait for a head; the body of the request before was not fed."""
        self._parser = HttpRequestParser(self)

    # Called by the parser, as are `on_body` and `on_message_complete`.

    def on_message_begin(self) -> None:
        self._headers = Headers()
        self._target = b""
        self._size = self._count = self._unfinished = 0
        self.whole = False

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._size += len(part)
        self._check()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.whole:  # a trailer
            return
        self._count += 1
        self._size += len(name) + len(value)
        self._check()
        self._headers.add(name.lower(), value)

    def on_headers_complete(self) -> None:
        self.whole = True
        parser = self._parser
        old = parser.get_http_version() == "1.0"
        if old and self._headers.get("transfer-encoding") is not None:
            raise Refusal(400, "HTTP/1.0 does not support Transfer-Encoding.")
        method, last = parser.get_method().decode(), not parser.should_keep_alive()
        self._begun(Head(method, self._target, self._headers, secure=self._secure, last=last, chunks=not old))

    def _check(self) -> None:
        if max(self._size, self._unfinished) > self._most_bytes:
            raise Refusal(431, f"The head is larger than {self._most_bytes} bytes.")
        if self._count > MOST_HEADERS:
            raise Refusal(431, f"The head has more than {MOST_HEADERS} lines.")
