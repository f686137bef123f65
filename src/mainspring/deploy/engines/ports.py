"""Port of chunk engines: score the chunks of a batch run on workers beyond this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol


class ChunkEngine(Protocol):
    """Calls `answers(request, chunks)` of a module on its workers, each with consecutive chunks.

    A call yields JSON texts: a chunk that is written, or what failed. It may be repeated, as after the end of a node:
    a chunk that is written twice is there once.
    """

    def run(self, entry: str, request: str, chunks: Sequence[int], per_worker: int) -> Generator[list[str], None, None]:
        """Yield the answers as they come, and no answers at least once a second. Closed, it ends its work.

        Args:
            entry: Module with the function `answers`.
            request: Its first argument, JSON.
            chunks: Numbers that ascend.
            per_worker: Calls for each worker, of about as many chunks each.

        Raises:
            Unavailable: The engine does not answer, or a call ended by itself.
        """
        ...
