"""Many requests over one call: run side by side, answered in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

WINDOW = 64  # requests of one stream that are on their way at once; the next one is not read before


async def answered_in_order(
    read: Callable[[], Awaitable[bytes | None]],
    answer: Callable[[bytes], Coroutine[Any, Any, bytes]],
    *,
    stopping: asyncio.Event,
) -> AsyncIterator[bytes]:
    """Yield `answer` of each message that `read` gives, until that is `None` or `stopping` is set.

    What was read is answered in any case, unless the consumer goes away: then it is cancelled. Raises what an answer
    raises.
    """
    running: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
    room = asyncio.Semaphore(WINDOW)

    async def take() -> None:
        try:
            while True:
                await room.acquire()
                message = await read()
                if message is None:
                    return
                running.put_nowait(asyncio.create_task(answer(message)))
        finally:
            running.put_nowait(None)

    async def end() -> None:
        await stopping.wait()
        taking.cancel()

    taking, ending = asyncio.create_task(take()), asyncio.create_task(end())
    try:
        while (each := await running.get()) is not None:
            try:
                yield await each
            finally:
                each.cancel()
            room.release()
        if not taking.cancelled():
            await taking
    finally:
        ending.cancel()
        taking.cancel()
        while not running.empty():
            left = running.get_nowait()
            if left is not None:
                left.cancel()
