"""Replies in server-sent events that are under way, and their end when the server stops.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from mainspring.core.errors import NotReady

EVENTS = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
_SPARED_S = 0.5  # of the time to drain, in which a stream says why it ends


def framed(data: bytes, name: str = "") -> bytes:
    """Return an event. `data` is JSON, which has no line breaks."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data


class OpenStreams:
    """Streams that are under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cutting = False

    def __len__(self) -> int:
        return len(self._tasks)

    def drain(self, within_s: float) -> None:
        """End all streams within a time, with an error where they are not whole."""
        asyncio.get_running_loop().call_later(max(0.0, within_s - _SPARED_S), self._cut)

    def _cut(self) -> None:
        self._cutting = True
        for task in tuple(self._tasks):
            task.cancel()

    async def parts(
        self, written: AsyncGenerator[bytes, None], failed: Callable[[Exception], bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Yield a stream's parts, and its error as the last one: its caller has a status of 200 already.

        Args:
            written: Is closed in any case.
            failed: Returns the event of an error; called once, as the stream has ended.
        """
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            async for part in written:
                yield part
        except asyncio.CancelledError:
            if not self._cutting or task is None:
                raise
            task.uncancel()
            yield failed(NotReady("The server is stopping; ask again."))
        except Exception as error:
            yield failed(error)
        finally:
            if task is not None:
                self._tasks.discard(task)
            await written.aclose()
