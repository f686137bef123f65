"""A gateway process's slot that answers with the metrics of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from mainspring.serving.plane.slots import Slots, folder


@contextmanager
def answering(state: Path, text: Callable[[], bytes], slot: int = 0) -> Iterator[None]:
    """Answer in a slot of the project with this state folder, as a gateway process does."""
    loop = asyncio.new_event_loop()
    slots = Slots(folder(state), slot, slot + 1)
    loop.run_until_complete(slots.start(text, lambda: True))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(slots.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
