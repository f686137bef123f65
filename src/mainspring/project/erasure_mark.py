"""The mark of the last erasure of a person's data, in a process that keeps answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mainspring.core.errors import MainspringError
from mainspring.security.ports import Erasures

_POLL_S = 0.5


class ErasureMark:
    """The mark as it was last read.

    Args:
        erasures: Opens the erasures; called in a thread.
    """

    def __init__(self, erasures: Callable[[], Erasures]) -> None:
        self._erasures = erasures
        self._mark = ""

    def __call__(self) -> str:
        return self._mark

    def read(self) -> None:
        """Read it again.

        Raises:
            Unavailable: The catalog is away.
        """
        self._mark = self._erasures().mark()

    async def follow(self) -> None:
        """Read the mark again and again, until it is cancelled: apart, as a catalog that is away holds nothing else
        up."""
        while True:
            with suppress(MainspringError):
                await asyncio.to_thread(self.read)
            await asyncio.sleep(_POLL_S)
