"""Answers that are followed step by step while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from mainspring.llm.answers.model import CitedAnswer
from mainspring.llm.answers.speaking import Noted, Searched, Step

Steps = tuple[Step | CitedAnswer, ...]


async def followed(
    answer: Callable[[Noted], Awaitable[CitedAnswer]], alive_s: float = 10.0
) -> AsyncGenerator[Steps, None]:
    """Yield the steps of an answer as they are done, and the answer at the end. The first come once the search is over:
    until then an error comes in their place.

    Whoever closes the generator ends the answer: its model is asked no further once that returns.

    Args:
        answer: Begins it.
        alive_s: Time without a step after which an empty tuple is yielded.

    Raises:
        As `answer` does.
    """
    steps: asyncio.Queue[Step | None] = asyncio.Queue()
    answering = asyncio.ensure_future(answer(steps.put_nowait))
    answering.add_done_callback(lambda _: steps.put_nowait(None))
    done: list[Step | CitedAnswer] = []
    begun = False
    try:
        while True:
            try:
                step = await asyncio.wait_for(steps.get(), alive_s if begun else None)
            except TimeoutError:
                yield ()
                continue
            if step is None:
                break
            done.append(step)
            begun = begun or isinstance(step, Searched)
            if begun and steps.empty():
                yield tuple(done)
                done = []
        if done and answering.exception() is not None:
            yield tuple(done)
        yield (*done, answering.result())
    finally:
        answering.cancel()
        await asyncio.wait((answering,))
