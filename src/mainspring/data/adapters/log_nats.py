"""NATS JetStream: a stream for each partition, so that a message's sequence number is its offset.

The client's event loop runs in a thread of its own. Messages are pulled by consumers that acknowledge nothing and end
by themselves; a pull that is under way when a read returns is taken up by the next one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import nats
from nats.aio.client import Client
from nats.errors import AuthorizationError, MaxPayloadError, NoServersError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError
from nats.js.errors import NotFoundError as NoStream

from mainspring.core.errors import Denied, Invalid, MainspringError, StorageFull, TooLarge, Unavailable
from mainspring.core.renewed_tls import client_context
from mainspring.core.settings import Url
from mainspring.core.time import from_datetime
from mainspring.data.streams.addresses import options_of, timeout_of, whole_option
from mainspring.data.streams.limits import (
    check_offset,
    check_sizes,
    check_topic,
    fewer_partitions,
    partition_of,
    take_in_turns,
    unknown_partition,
    unknown_topic,
)
from mainspring.data.streams.model import Message, NewMessage, Span

T = TypeVar("T")

_OWN = "Mainspring-Message"  # header with what NATS has no place for: key, headers, time, a missing value
_STREAM = re.compile(r"(.+)=(\d+)")  # topic and partition; a topic has no "=", a stream no "."
_BUCKET = "mainspring-readers"
_AT_ONCE = 500
_PULL_S = 1.0  # how long the server holds a pull for which there is no message
_IDLE_S = 60.0  # after which the server forgets a consumer
_LOOK_S = 2.0  # between two looks at an idle stream
_NO_MESSAGE = (10_037, 10_043, 10_057)
_FULL = (10_047, 10_077, 10_023)  # JetStream's codes of no room

_packed = msgspec.msgpack.Encoder().encode
_unpacked = msgspec.msgpack.Decoder(tuple[bytes | None, tuple[tuple[str, bytes], ...], int | None, bool]).decode


@dataclass
class _Reader:
    """A partition's consumer: its next offset, messages that came and were not yet returned, a pull under way."""

    next: int
    pull: Any
    came: deque[Message] = field(default_factory=deque)
    task: asyncio.Task[list[Any]] | None = None
    looked: float = 0.0


class NatsLog:
    """Topics on a server: `nats://user:password@host:4222,host:4222?replicas=3`; `tls://` encrypts, with the PEM files
    `ca`, `cert` and `key`.

    Raises:
        Invalid: The address has an unknown option.
    """

    def __init__(self, url: Url) -> None:
        options = options_of(url, ("replicas", "ca", "cert", "key"))
        parts = urlsplit(url.text)
        self._servers = [f"{parts.scheme}://{host}" for host in parts.netloc.rpartition("@")[2].split(",")]
        self._login: dict[str, Any] = {}
        if parts.username:
            self._login = {"user": unquote(parts.username), "password": unquote(parts.password or "")}
        if parts.scheme == "tls":
            self._login["tls"] = client_context(*(options.get(each) for each in ("ca", "cert", "key")))
        self._shown, self._timeout_s = url.shown, timeout_of(options)
        self._replicas = whole_option(options, "replicas", 1)
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._readers: dict[tuple[str, int], _Reader] = {}
        self._counts: dict[str, int] = {}
        self._turn = 0

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        has = self._run(self._listed()).get(topic, 0)
        if has > partitions:
            raise fewer_partitions(topic, partitions, has)
        for number in range(has, partitions):
            self._run(self._make(_stream(topic, number)))
        self._counts.pop(topic, None)

    def topics(self) -> list[str]:
        return sorted(self._run(self._listed()))

    def partitions(self, topic: str) -> list[int]:
        return list(range(self._count(topic, fresh=True)))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        wanted = list(partitions)
        self._check(topic, wanted)
        return {number: self._run(self._span(topic, number)) for number in wanted}

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        self._check(topic, after)
        return self._run(self._read(topic, after, limit, wait_s, max_bytes), more_s=wait_s)

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        self._check(topic, {each.partition for each in messages if each.partition is not None})
        count, begun = self._count(topic), time.monotonic_ns()
        places = [partition_of(message, count, begun + i) for i, message in enumerate(messages)]
        return self._run(self._publish(topic, messages, places))

    def committed(self, topic: str, group: str) -> dict[int, int]:
        return self._run(self._stored(_reader_key(topic, group)))

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        self._run(self._store(_reader_key(topic, group), offsets))

    def forget(self, topic: str, before: Mapping[int, int]) -> None:
        """Remove messages before an offset of partitions, as retention does."""

        async def purge() -> None:
            js = await self._js()
            for number, offset in before.items():
                await js.purge_stream(_stream(topic, number), seq=offset)

        self._run(purge())

    def erase(self, topic: str, places: Collection[tuple[int, int]]) -> None:
        """Delete messages; the server overwrites each with random bytes. See `ports.Erasing`."""
        self._check(topic, {number for number, _ in places})
        for number, offset in places:
            self._run(self._overwrite(_stream(topic, number), offset))

    def close(self) -> None:
        with self._lock:
            loop, client, self._loop, self._client = self._loop, self._client, None, None
            readers, self._readers = list(self._readers.values()), {}
            self._counts = {}
        if loop is None:
            return

        async def end() -> None:
            for reader in readers:
                if reader.task is not None:
                    reader.task.cancel()
            if client is not None:
                await client.close()

        with suppress(Exception):  # nothing depends on a farewell
            asyncio.run_coroutine_threadsafe(end(), loop).result(self._timeout_s)
        loop.call_soon_threadsafe(loop.stop)

    # In the thread of the event loop

    async def _js(self) -> JetStreamContext:
        if self._client is None or self._client.is_closed:
            client = Client()
            try:
                await client.connect(
                    self._servers, connect_timeout=max(1, int(self._timeout_s)), max_reconnect_attempts=3,
                    reconnect_time_wait=0.2, ping_interval=max(1, int(self._timeout_s / 2)), max_outstanding_pings=1,
                    error_cb=_heard, name="mainspring", **self._login,
                )  # fmt: skip
            except BaseException:
                await client.close()
                raise
            self._client = client
            self._readers.clear()
        return self._client.jetstream(timeout=self._timeout_s, publish_async_max_pending=100_000)

    async def _listed(self) -> dict[str, int]:
        js, counts = await self._js(), dict[str, int]()
        assert self._client is not None
        offset, total = 0, 1
        while offset < total:
            asked = json.dumps({"offset": offset}).encode()
            reply = json.loads((await self._client.request("$JS.API.STREAM.NAMES", asked, self._timeout_s)).data)
            names, total = reply.get("streams") or [], reply.get("total", 0)
            offset += max(1, len(names))
            for name in names:
                if found := _STREAM.fullmatch(name):
                    topic = found[1].replace("=2E", ".")
                    counts[topic] = counts.get(topic, 0) + 1
        del js
        self._counts = counts
        return counts

    async def _make(self, name: str) -> None:
        config = StreamConfig(name=name, subjects=[name], storage=StorageType.FILE, num_replicas=self._replicas,
                              allow_direct=True)  # fmt: skip
        await (await self._js()).add_stream(config)

    async def _span(self, topic: str, number: int) -> Span:
        try:
            state = (await (await self._js()).stream_info(_stream(topic, number))).state
        except NoStream:
            self._counts.pop(topic, None)
            raise unknown_topic(topic) from None
        return Span(max(1, state.first_seq), state.last_seq + 1)

    async def _publish(
        self, topic: str, messages: Sequence[NewMessage], places: Sequence[int]
    ) -> list[tuple[int, int]]:
        js = await self._js()
        assert self._client is not None
        headers = [_headers(message) for message in messages]
        largest = self._client.max_payload - max((len(each[_OWN]) for each in headers if each), default=0) - 64
        check_sizes(topic, messages, largest)
        asked = []
        for message, place, head in zip(messages, places, headers, strict=True):
            asked.append(await js.publish_async(_stream(topic, place), message.value or b"", headers=head))
        try:
            done = await asyncio.wait_for(asyncio.gather(*asked), self._timeout_s)
        except NoStreamResponseError:
            raise unknown_topic(topic) from None
        return [(place, ack.seq) for place, ack in zip(places, done, strict=True)]

    async def _read(
        self, topic: str, after: Mapping[int, int], limit: int, wait_s: float, max_bytes: int
    ) -> list[Message]:
        readers = [await self._reader(topic, number, offset) for number, offset in after.items()]
        end, renewed = time.monotonic() + wait_s, False
        while readers:
            left = max(0.0, end - time.monotonic())
            try:
                await self._pull(readers, limit, max_bytes, left)
            except APIError:  # a consumer or its stream is gone, or the server was started anew
                if renewed:
                    raise
                renewed = True
                for number in after:
                    await self._drop(topic, number)
                readers = [await self._reader(topic, number, offset) for number, offset in after.items()]
                continue
            self._turn += 1
            ways = [_drained(reader.came) for reader in readers]
            found = take_in_turns(ways, self._turn, limit, max_bytes)
            for message in found:
                self._readers[topic, message.partition].next = message.offset + 1
            if found or not left:
                return found
            for number, reader in zip(after, readers, strict=True):
                await self._look(topic, number, reader)
        return []

    async def _reader(self, topic: str, number: int, offset: int) -> _Reader:
        await self._js()
        reader = self._readers.get((topic, number))
        if reader is not None and reader.next == offset:
            return reader
        await self._drop(topic, number)
        check_offset(topic, number, offset, await self._span(topic, number))
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=max(1, offset), ack_policy=AckPolicy.NONE,
            inactive_threshold=_IDLE_S,
        )  # fmt: skip
        name = _stream(topic, number)
        pull = await (await self._js()).pull_subscribe(name, stream=name, config=config)
        reader = self._readers[topic, number] = _Reader(offset, pull, looked=time.monotonic())
        return reader

    async def _drop(self, topic: str, number: int) -> None:
        reader = self._readers.pop((topic, number), None)
        if reader is not None:
            if reader.task is not None:
                reader.task.cancel()
            with suppress(NatsError):
                await reader.pull.unsubscribe()

    async def _pull(self, readers: list[_Reader], limit: int, max_bytes: int, wait_s: float) -> None:
        """Let each reader have a pull under way, and wait for the first that brings something."""
        for reader in readers:
            enough = len(reader.came) >= limit or sum(len(each.value or b"") for each in reader.came) >= max_bytes
            if reader.task is None and not enough:
                reader.task = asyncio.ensure_future(reader.pull.fetch(min(limit, _AT_ONCE), timeout=_PULL_S))
        tasks = [reader.task for reader in readers if reader.task is not None]
        if not tasks:
            return
        quick = any(reader.came for reader in readers)
        await asyncio.wait(tasks, timeout=0.01 if quick else max(0.05, wait_s), return_when=asyncio.FIRST_COMPLETED)
        for reader in readers:
            if reader.task is not None and reader.task.done():
                task, reader.task = reader.task, None
                with suppress(TimeoutError):  # the client has one of its own, and raises the other one too
                    _keep(reader, task.result())

    async def _look(self, topic: str, number: int, reader: _Reader) -> None:
        """Raise if an idle stream is away, or no longer has what was to be read next."""
        if time.monotonic() - reader.looked < _LOOK_S:
            return
        reader.looked = time.monotonic()
        check_offset(topic, number, reader.next, await self._span(topic, number))

    async def _overwrite(self, stream: str, offset: int) -> None:
        try:
            await (await self._js()).delete_msg(stream, offset)
        except APIError as error:
            if error.err_code not in _NO_MESSAGE:
                raise

    async def _bucket(self) -> Any:
        js = await self._js()
        try:
            return await js.key_value(_BUCKET)
        except NoStream:
            return await js.create_key_value(bucket=_BUCKET, history=1)

    async def _stored(self, key: str) -> dict[int, int]:
        try:
            entry = await (await self._bucket()).get(key)
        except nats.js.errors.KeyNotFoundError:
            return {}
        return {int(number): offset for number, offset in json.loads(entry.value).items()}

    async def _store(self, key: str, offsets: Mapping[int, int]) -> None:
        kept = {**await self._stored(key), **offsets}
        await (await self._bucket()).put(key, json.dumps(kept).encode())

    # In the caller's thread

    def _run(self, work: Coroutine[Any, Any, T], *, more_s: float = 0.0) -> T:
        """Run a coroutine in the loop's thread, and give its errors this package's kinds."""
        asked = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return asked.result(self._timeout_s + 1 + more_s)
        except MainspringError:
            raise
        except (NatsError, OSError, TimeoutError) as error:
            asked.cancel()
            self._fail(error)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_turn, args=(self._loop,), name="nats", daemon=True).start()
            return self._loop

    def _count(self, topic: str, *, fresh: bool = False) -> int:
        if fresh or topic not in self._counts:
            counts = self._run(self._listed())
            if topic not in counts:
                raise unknown_topic(topic)
            return counts[topic]
        return self._counts[topic]

    def _check(self, topic: str, partitions: Iterable[int]) -> None:
        """Raise `NotFound` unless the topic has these partitions."""
        count, wanted = self._count(topic), list(partitions)
        if any(not 0 <= number < count for number in wanted):
            count = self._count(topic, fresh=True)  # it may have got more
        for number in wanted:
            if not 0 <= number < count:
                raise unknown_partition(topic, number, count)

    def _fail(self, error: BaseException) -> NoReturn:
        if isinstance(error, NoStream):
            self._counts.clear()
            raise Unavailable(f"The log {self._shown} lost a stream while it was used.") from error
        if isinstance(error, MaxPayloadError):
            raise TooLarge(f"The log {self._shown} allows no message of that size.") from error
        if isinstance(error, AuthorizationError):
            raise Denied(f"The log {self._shown} refused the user.", fix="correct the user or password.") from error
        if isinstance(error, APIError) and error.err_code in _FULL:
            raise StorageFull(f"No space left in the log {self._shown}: {error.description}.") from error
        if isinstance(error, APIError) and error.err_code == 10_039:
            raise Invalid(f"JetStream is off in the log {self._shown}.", fix="start nats-server with -js.") from error
        told = str(error) or "no answer"
        if isinstance(error, NoServersError) or not str(error):
            told = f"no answer within {self._timeout_s:g} s"
        raise Unavailable(f"The log {self._shown} failed: {told}.", fix="check that nats-server runs.") from error


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


async def _heard(_error: Exception) -> None:
    """Errors of a connection are raised by the call that needs it."""


def _stream(topic: str, number: int) -> str:
    return f"{topic.replace('.', '=2E')}={number}"


def _reader_key(topic: str, group: str) -> str:
    return f"{topic.replace('.', '=2E')}.{base64.urlsafe_b64encode(group.encode()).decode().rstrip('=')}"


def _headers(message: NewMessage) -> dict[str, str] | None:
    """Return the header for what NATS has no place for."""
    if message.key is None and not message.headers and message.at is None and message.value is not None:
        return None
    own = _packed((message.key, message.headers, message.at, message.value is None))
    return {_OWN: base64.b64encode(own).decode()}


def _message(number: int, found: Any) -> Message:
    meta, headers = found.metadata, dict(found.headers or {})
    own = headers.pop(_OWN, None)
    others = tuple((name, value.encode()) for name, value in headers.items())
    key, kept, at, missing = _unpacked(base64.b64decode(own)) if own else (None, (), None, False)
    arrived = from_datetime(meta.timestamp)
    value = None if missing else found.data
    return Message(number, meta.sequence.stream, key, value, arrived if at is None else at, (*others, *kept))


def _keep(reader: _Reader, found: Iterable[Any]) -> None:
    for each in found:
        message = _message(int(each.subject.rpartition("=")[2]), each)
        expected = reader.came[-1].offset + 1 if reader.came else reader.next
        if message.offset >= expected:
            reader.came.append(message)


def _drained(waiting: deque[Message]) -> Iterator[Message]:
    while waiting:
        yield waiting.popleft()
