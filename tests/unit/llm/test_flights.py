"""An answer for several readers at once: bounded in memory, whoever reads slowly or leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from kit.scripted_upstreams import ScriptedUpstream, Step, asked, call
from mainspring.core.errors import TooSlow
from mainspring.llm.caching import Cached
from mainspring.llm.flights import AHEAD, BEHIND, Flight, Room
from mainspring.llm.limits import AnswerCache
from mainspring.llm.model import Event, Sampling

PIECE = 10_000


def made(most: int, pieces: int) -> tuple[Flight, Room, list[int]]:
    """Return an answer under way, its room, and the numbers of the pieces that its upstream gave."""
    room, given = Room(most), list[int]()
    flight = Flight(room)

    async def make() -> None:
        for number in range(pieces):
            given.append(number)
            await flight.add((Event(text=f"{number:0{PIECE}}"),))

    flight.users = 1
    flight.begin(make())
    return flight, room, given


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def read(flight: Flight) -> list[int]:
    return [int(event.text[-4:]) async for batch in flight.events() for event in batch]


def test_an_upstream_is_not_far_ahead_of_its_fastest_reader() -> None:
    async def test() -> None:
        flight, room, given = made(1 << 40, 1000)
        await settled()
        assert len(given) * PIECE <= AHEAD + 2 * PIECE
        async with aclosing(flight.events()) as events:
            for _ in range(50):
                await anext(events)
            await settled()
            assert 50 < len(given) <= 50 + AHEAD // PIECE + 2
        await flight.stop()
        assert room.used == 0

    run(test)


@pytest.mark.parametrize("most", [AHEAD, 1 << 40])
def test_an_answer_without_room_keeps_its_last_pieces_alone(most: int) -> None:
    async def test() -> None:
        flight, room, _ = made(most, 1000)
        largest, got = 0, []
        async for batch in flight.events():
            got += [int(event.text[-4:]) for event in batch]
            largest = max(largest, room.used)
        assert got == list(range(1000))
        assert flight.kept is (most > AHEAD)
        assert (largest <= AHEAD + BEHIND + 2 * PIECE) is (most == AHEAD)
        await flight.stop()

    run(test)


@pytest.mark.parametrize("most", [AHEAD, 1 << 40])
def test_a_slow_reader_holds_up_nobody_and_gets_all_where_there_is_room(most: int) -> None:
    async def test() -> None:
        flight, _, _ = made(most, 1000)
        async with aclosing(flight.events()) as slow:
            seen = [batch async for batch in _first(slow, 3)]
            assert await read(flight) == list(range(1000))
            if most == AHEAD:
                with pytest.raises(TooSlow):
                    await anext(slow)
            else:
                seen += [batch async for batch in slow]
                assert [int(event.text[-4:]) for batch in seen for event in batch] == list(range(1000))

    run(test)


async def _first(events: Any, count: int) -> Any:
    for _ in range(count):
        yield await anext(events)


def test_whoever_asks_as_the_last_reader_leaves_gets_an_answer() -> None:
    async def test() -> None:
        upstream = ScriptedUpstream("a", lambda: Step(events=5, first_s=0.001, between_s=0.001))
        cached = Cached(upstream, AnswerCache(), "", lambda: 0)
        request = asked(sampling=Sampling(temperature=0.0), stream=True)
        for turns in range(6):
            first = asyncio.ensure_future(anext(cached.stream(request, call())))
            await asyncio.sleep(0.0005)
            first.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            assert len([each async for each in cached.stream(request, call())]) == 6
            cached.erase()

    run(test)
