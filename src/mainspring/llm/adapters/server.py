"""Upstreams over HTTP: their common part, whatever format they speak."""

from __future__ import annotations

import asyncio
import ssl
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mainspring.core.errors import TooLarge
from mainspring.llm.adapters.connections import Connections, retry_after_ms
from mainspring.llm.adapters.exchange import Answer
from mainspring.llm.model import Call, ChatReply, ChatRequest, Deadlines, Event, Events, UpstreamError
from mainspring.llm.protocol.events import Frame, Frames
from mainspring.llm.protocol.reading import InvalidField

Headers = Sequence[tuple[str, str]]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_QUICK = Deadlines(connect=2_000_000, first=2_000_000, whole=2_000_000)
_MOST_SHOWN = 300  # characters of an error that is no JSON
_MOST_TOLD = 4000  # of one that is
_KINDS: dict[int, Any] = {
    **dict.fromkeys((401, 402, 403), "denied"),
    404: "missing",
    **dict.fromkeys((429, 503, 529), "limited"),
}
_STATUS = {"overloaded_error": 529, "rate_limit_error": 429}  # of errors within an answer


class Reader:
    """Reader of one stream's events, in whatever pieces they come.

    Attributes:
        done: Whether nothing of what comes counts any more.
        failure: The error that the stream has in place of the rest, or what is wrong with the rest.
    """

    def __init__(self) -> None:
        self.done = False
        self.failure: bytes | Exception | None = None
        self._frames = Frames()
        self._open: set[int] = set()
        self._finished: set[int] = set()

    @property
    def whole(self) -> bool:
        """True if there was an answer, and each choice of it ended."""
        return bool(self._finished) and not self._open - self._finished

    def read(self, data: bytes) -> list[Event]:
        """Return the events that are complete now; those before a failure come first."""
        events: list[Event] = []
        try:
            for frame in self._frames.feed(data):
                found = self.events(frame)
                if isinstance(found, Event):
                    if found.text and not found.finish and found.index in self._open:
                        events.append(found)
                        continue
                    found = [found]
                if isinstance(found, bytes):
                    self._fail(found)
                    break
                for event in found:
                    if event.finish:
                        self._finished.add(event.index)
                    elif event.text or event.tool_calls:
                        self._open.add(event.index)
                events += found
                if self.done:
                    break
        except (*UNREADABLE, TooLarge) as error:
            self._fail(error)
        return events

    @abstractmethod
    def events(self, frame: Frame) -> Event | list[Event] | bytes:
        """Return the events in a frame, or the error that stands in their place; note the end in `done`."""

    def _fail(self, failure: bytes | Exception) -> None:
        self.failure = failure
        self.done = True


class ServerUpstream:
    """An upstream over HTTP. Belongs to one event loop.

    Args:
        url: Its address, with the path that its protocol begins with.
        key: Tells its API key; empty for none.
    """

    path = ""  # of requests for answers

    def __init__(self, name: str, url: str, key: Callable[[], str] = str, *, tls: ssl.SSLContext | None = None) -> None:
        self._name, self.key = name, key
        self._secrets: tuple[str, ...] = (url, urlsplit(url).netloc)  # in the order in which they are hidden
        self._connections = Connections(name, url, self._headers, tls=tls)

    @property
    def name(self) -> str:
        return self._name

    @abstractmethod
    def authorised(self, key: str) -> Headers:
        """Return the headers of every request."""

    @abstractmethod
    def written(self, request: ChatRequest) -> bytes:
        """Return the body of a request. Raises `InvalidField`."""

    @abstractmethod
    def answer_of(self, content: bytes) -> ChatReply | bytes:
        """Return the answer in a body, or the error in it. Raises one of `UNREADABLE`."""

    @abstractmethod
    def reader(self) -> Reader:
        """Return the reader of a stream."""

    def headers(self, request: ChatRequest, call: Call) -> Headers:  # noqa: ARG002
        """Return further headers of a request."""
        return ()

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        content = await self.post(self.path, self._body(request), call, self.headers(request, call))
        try:
            found = self.answer_of(content)
        except UNREADABLE as error:
            raise self.no_answer(error) from None
        if isinstance(found, bytes):
            raise self._error(200, found)
        return found

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        body, headers = self._body(request), self.headers(request, call)
        answer = await self._connections.send("POST", self.path, body, call.deadlines, headers, call.attempt)
        begun = False
        try:
            await self._check_stream(answer)
            reader = self.reader()
            while not reader.done and (data := await answer.next(answer.due(begun))):
                events = reader.read(data)
                if events:
                    begun = True
                    yield tuple(events)
            if isinstance(reader.failure, bytes):
                raise self._error(200, reader.failure)
            if reader.failure is not None:
                raise self.no_answer(reader.failure)
            if not reader.whole:
                raise self._connections.error("broken", "ended its answer in the middle")
            answer.ended()
        except UpstreamError as error:
            error.begun = begun
            raise
        finally:
            answer.close()

    async def models(self) -> tuple[str, ...]:
        answer = await self._connections.send("GET", "/models", b"", _QUICK)
        try:
            content = await answer.whole()
            if answer.status != 200:
                raise self._error(answer.status, content)
            return tuple(each.id for each in msgspec.json.decode(content, type=_Models).data)
        except UNREADABLE as error:
            raise self.no_answer(error) from None
        finally:
            answer.close()

    async def healthy(self) -> bool:
        try:
            async with asyncio.timeout(2):
                await self.models()
        except UpstreamError as error:
            return error.kind in ("denied", "missing", "refused")  # it answers, and has no such list for us
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        await self._connections.close()

    async def post(self, path: str, body: bytes, call: Call, headers: Headers = ()) -> bytes:
        """Send a body and return the one that comes back.

        Raises:
            UpstreamError: None does.
        """
        answer = await self._connections.send("POST", path, body, call.deadlines, headers, call.attempt)
        try:
            content = await answer.whole()
            if answer.status != 200:
                raise self._error(answer.status, content, answer)
            return content
        finally:
            answer.close()

    def no_answer(self, error: Exception) -> UpstreamError:
        """Return the error of a body that cannot be read."""
        return self._connections.error("failed", f"gave no valid answer: {error}")

    def _headers(self) -> Headers:
        key = self.key()
        if key and key not in self._secrets:
            self._secrets = (key, *self._secrets)
        return self.authorised(key)

    def _body(self, request: ChatRequest) -> bytes:
        try:
            return self.written(request)
        except InvalidField as error:  # of what this protocol cannot say: another upstream may
            raise UpstreamError(
                error.what, kind="refused", upstream=self._name, status=400, param=error.param
            ) from None

    async def _check_stream(self, answer: Answer) -> None:
        """Raise unless an answer is a stream of events."""
        if answer.status != 200:
            raise self._error(answer.status, await answer.whole(), answer)
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            content = await answer.whole()
            if _Errors.read(content) is not None:
                raise self._error(200, content)
            raise self._connections.error("failed", f"gave no stream, but {kind or 'a body without a type'}")

    def _error(self, status: int, content: bytes, answer: Answer | None = None) -> UpstreamError:
        """Return the error in a body, or in what stood in place of an answer."""
        error = _Errors.read(content) or _Error(content[:_MOST_SHOWN].decode(errors="replace"))
        code = str(error.code or "")
        if status == 200:
            status = int(code) if code.isdigit() and len(code) == 3 else _STATUS.get(error.type or "", status)
        kind = _KINDS.get(status, "refused" if 400 <= status < 500 else "failed")
        text = self._shown(error.message)
        what = text if kind == "refused" and text else f"The upstream {self._name!r} answered with status {status}."
        refused = kind == "refused"
        return UpstreamError(
            what,
            kind=kind,
            upstream=self._name,
            status=status,
            retry_after_ms=None if answer is None else retry_after_ms(answer.headers),
            code=code if refused else "",
            type=(error.type or "") if refused else "",
            param=(error.param or "") if refused else "",
        )

    def _shown(self, message: str) -> str:
        """Return what a caller may see of an upstream's message: not all of a long one, and neither address nor key."""
        for secret in self._secrets:
            message = message.replace(secret, "[...]")
        return message[:_MOST_TOLD].strip()


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Errors(msgspec.Struct):
    error: _Error | str | None = None

    @classmethod
    def read(cls, content: bytes) -> _Error | None:
        """Return the error in a body, or in the value of its field `error`."""
        try:
            found = msgspec.json.decode(content, type=cls)
            if isinstance(found.error, str):
                return _Error(found.error)
            return found.error or msgspec.json.decode(content, type=_Error)
        except UNREADABLE:
            return None
