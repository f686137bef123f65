"""Answers that are being made for all who ask for the same meanwhile, in bounded memory whoever reads slowly.

An upstream is read no further than a little ahead of the fastest reader. The pieces of an answer are kept for readers
who come later or are slower, while all answers under way fit into their room. Of an answer that does not, the last
pieces are kept alone: nobody joins it any more, and a reader who falls behind them gets an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass

from mainspring.core.errors import TooSlow
from mainspring.llm.counting import event_bytes
from mainspring.llm.model import ChatReply, Events

AHEAD = 1 << 18  # bytes by which an upstream may be ahead of the fastest reader
BEHIND = 1 << 20  # of an answer without room, by which a reader may be behind the fastest
_EVENT = 300  # bytes of an event beside its texts


@dataclass(eq=False)
class Room:
    """Bytes that the answers under way may have together."""

    most: int
    used: int = 0


@dataclass(eq=False)
class _Reader:
    piece: int = 0  # the next
    read: int = 0  # bytes of those before


class Flight:
    """An answer that is being made. Stop it when it has no `users`.

    Attributes:
        batches: Its events so far; without the first ones if it is not `kept`.
        nbytes: Their size.
        kept: Whether there is room for all of it.
    """

    def __init__(self, room: Room) -> None:
        self.batches: list[Events] = []
        self.nbytes = 0
        self.kept = True
        self.reply: ChatReply | None = None
        self.users = 0
        self._room = room
        self._ends: list[int] = []  # of each batch, in bytes from the first
        self._left = 0  # batches that are no longer there
        self._readers: set[_Reader] = set()
        self._changed, self._read = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._over = False

    def begin(self, work: Awaitable[None]) -> None:
        self._task = asyncio.ensure_future(self._run(work))

    async def add(self, batch: Events) -> None:
        """Take events, and wait until the fastest reader is near."""
        size = sum(event_bytes(event) + len(event.raw) + _EVENT for event in batch)
        self.batches.append(batch)
        self._ends.append(size + (self._ends[-1] if self._ends else 0))
        self.nbytes += size
        self._room.used += size
        self.kept = self.kept and self._room.used <= self._room.most
        if not self.kept:
            self._forget()
        self._wake()
        while self._ends[-1] - self._fastest > AHEAD:
            self._read.clear()
            await self._read.wait()

    @property
    def _fastest(self) -> int:
        return max((each.read for each in self._readers), default=0)

    def _forget(self) -> None:
        """Let go of what is far behind the fastest reader."""
        gone = sum(end < self._fastest - BEHIND for end in self._ends)
        if gone:
            before = self._ends[gone - 1] - (self._ends[-1] - self.nbytes)
            self.nbytes -= before
            self._room.used -= before
            self._left += gone
            del self.batches[:gone], self._ends[:gone]

    async def events(self) -> AsyncGenerator[Events, None]:
        """Yield its events from the first, as they come.

        Raises:
            TooSlow: There is no room for what this reader has not read yet.
        """
        reader = _Reader()
        self._readers.add(reader)
        try:
            while True:
                while reader.piece < self._left + len(self.batches):
                    if reader.piece < self._left:
                        raise TooSlow("The answer was read too slowly, and there is no room to keep it; ask again.")
                    place = reader.piece - self._left
                    reader.piece, reader.read = reader.piece + 1, self._ends[place]
                    self._read.set()
                    yield self.batches[place]
                if self._over:
                    break
                await self._changed.wait()
        finally:
            self._readers.discard(reader)
            self._read.set()
        if self._error is not None:
            raise self._error

    async def whole(self) -> ChatReply:
        while not self._over:
            await self._changed.wait()
        if self._error is not None or self.reply is None:
            raise self._error or asyncio.CancelledError
        return self.reply

    async def stop(self) -> None:
        """End it: it has no users any more."""
        if self._task is not None and not self._over:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._room.used -= self.nbytes
        self.nbytes = 0

    async def _run(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:  # raised by each who waits
            self._error = error
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
