"""A stream's answers come in the order of its messages, however long each takes, and nothing is left running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mainspring.core.errors import Denied
from mainspring.serving.grpc.stream import WINDOW, answered_in_order


def messages(*contents: bytes, forever: bool = False) -> Callable[[], Awaitable[bytes | None]]:
    left = iter(contents)

    async def read() -> bytes | None:
        found = next(left, None)
        if found is None and forever:
            await asyncio.Event().wait()
        return found

    return read


def test_answers_come_in_order_and_run_side_by_side() -> None:
    begun: list[bytes] = []
    last = asyncio.Event()

    async def answer(message: bytes) -> bytes:
        begun.append(message)
        if message == b"3":
            last.set()
        await last.wait()  # the first is answered only when the last has begun
        return message * 2

    async def main() -> list[bytes]:
        read = messages(b"1", b"2", b"3")
        return [each async for each in answered_in_order(read, answer, stopping=asyncio.Event())]

    assert asyncio.run(main()) == [b"11", b"22", b"33"]
    assert begun == [b"1", b"2", b"3"]


def test_no_more_than_a_window_is_read_before_an_answer_is_taken() -> None:
    async def main() -> None:
        count, release = 0, asyncio.Event()

        async def read() -> bytes:
            nonlocal count
            count += 1
            return b"x"

        async def answer(message: bytes) -> bytes:
            await release.wait()
            return message

        answers = answered_in_order(read, answer, stopping=asyncio.Event())
        first = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0.05)
        assert count == WINDOW
        release.set()
        await first
        await answers.aclose()

    asyncio.run(main())


def test_stopping_ends_it_when_what_was_read_is_answered() -> None:
    async def main() -> list[bytes]:
        stopping, told = asyncio.Event(), []

        async def answer(message: bytes) -> bytes:
            stopping.set()
            await asyncio.sleep(0.01)
            return message

        async for each in answered_in_order(messages(b"1", b"2", forever=True), answer, stopping=stopping):
            told.append(each)
        return told

    assert asyncio.run(main()) == [b"1", b"2"]


def test_when_the_consumer_goes_away_answers_are_cancelled() -> None:
    async def main() -> int:
        cancelled = 0

        async def answer(message: bytes) -> bytes:
            nonlocal cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return message

        async def consume() -> None:
            async for _ in answered_in_order(messages(b"1", b"2", forever=True), answer, stopping=asyncio.Event()):
                pass

        consuming = asyncio.ensure_future(consume())
        await asyncio.sleep(0.01)
        consuming.cancel()
        await asyncio.wait([consuming])
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return cancelled

    assert asyncio.run(main()) == 2


def test_what_an_answer_or_the_reading_raises_is_raised() -> None:
    async def refused(_message: bytes) -> bytes:
        raise Denied("revoked")

    async def echo(message: bytes) -> bytes:
        return message

    async def broken() -> bytes:
        raise OSError("gone")

    async def main() -> None:
        with pytest.raises(Denied):
            _ = [each async for each in answered_in_order(messages(b"1", b"2"), refused, stopping=asyncio.Event())]
        with pytest.raises(OSError, match="gone"):
            _ = [each async for each in answered_in_order(broken, echo, stopping=asyncio.Event())]
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
