"""The client for an event loop of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.client.certificates import Certificates
from mainspring.client.events import EventReader
from mainspring.client.failures import refusal
from mainspring.client.protocol import Protocol
from mainspring.client.results import Inference, ModelInfo, Predictions, ServerInfo
from mainspring.client.retrying import Retries
from mainspring.client.rows import Row
from mainspring.client.talk import Answer, Done, Loss, Lost, Pause, Send, Talk, go_on
from mainspring.client.transport import answer_of, asked, library, lost_by, options

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited. It belongs to one event loop; use `async with`, or `close`.

    The arguments are those of `Client`.

    Raises:
        MissingExtra: httpx is not installed.
        Invalid: `url` is not an HTTP address, or `tls` names files that cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        tls: SSLContext | Certificates | None = None,
        connections: int = 16,
    ) -> None:
        self._httpx = library()
        self._http = self._httpx.AsyncClient(**options(url, key, headers, tls, connections))
        self._protocol = Protocol(url, retries or Retries(), timeout_s)

    async def predict(
        self,
        endpoint: str,
        rows: Row | Sequence[Row],
        *,
        outputs: Sequence[str] | None = None,
        statuses: bool = False,
        version: str | None = None,
        id: str | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Predictions:
        """`Client.predict`."""
        return await self._run(
            self._protocol.predict(
                endpoint,
                rows,
                outputs=outputs,
                statuses=statuses,
                version=version,
                id=id,
                priority=priority,
                timeout_s=timeout_s,
            )
        )

    async def infer(
        self,
        endpoint: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        id: str | None = None,
        priority: int = 0,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Inference:
        """`Client.infer`."""
        return await self._run(
            self._protocol.infer(
                endpoint,
                inputs,
                outputs=outputs,
                version=version,
                id=id,
                priority=priority,
                parameters=parameters,
                timeout_s=timeout_s,
            )
        )

    async def stream(
        self, endpoint: str, inputs: Mapping[str, Any], *, version: str | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """`Client.stream`."""
        asked = self._protocol.stream(endpoint, inputs, version, timeout_s)
        try:
            async with self._http.stream(**asked) as response:
                if response.status_code != 200:
                    raise refusal(answer_of(response, await response.aread()))
                events = EventReader()
                async for piece in response.aiter_bytes():
                    for event in events.feed(piece):
                        yield event
        except (self._httpx.HTTPError, OSError) as error:
            raise self._protocol.broken(lost_by(error)) from error

    async def metadata(self, endpoint: str, *, version: str | None = None) -> ModelInfo:
        """`Client.metadata`."""
        return await self._run(self._protocol.metadata(endpoint, version))

    async def server(self) -> ServerInfo:
        """`Client.server`."""
        return await self._run(self._protocol.server())

    async def ready(self, endpoint: str | None = None) -> bool:
        """`Client.ready`."""
        return await self._run(self._protocol.ready(endpoint))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, talk: Talk[T]) -> T:
        step = go_on(talk)
        while not isinstance(step, Done):
            step = go_on(talk, await self._take(step))
        return step.result

    async def _take(self, step: Send | Pause) -> Answer | Lost | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with asyncio.timeout(step.timeout_s):  # httpx limits each part of an exchange, not the whole
                response = await self._http.request(**asked(step))
            return answer_of(response, response.content)
        except TimeoutError:
            return Lost(Loss.LATE, f"{step.timeout_s:g} s")
        except (self._httpx.HTTPError, OSError) as error:  # httpx lets errors of TLS in a reply through
            return lost_by(error)
