"""A gateway process's slot that answers with the metrics of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from mainspring.serving.plane.metrics import Metrics
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


def asked(endpoint: str) -> Metrics:
    """Return the metrics of a gateway process whose endpoint answered 40 requests, and refused 2."""
    metrics = Metrics(ready=lambda: True, served=dict, waiting=dict, refused=dict)
    of_it = metrics.of(endpoint)
    of_it.requests[200], of_it.requests[429] = 40, 2
    of_it.rejections["queue_full"] = 2
    for rows in (1, 3, 3, 60):
        of_it.batch_rows.observe(rows)
        of_it.stages["queue"].observe(0.002)
    return metrics
