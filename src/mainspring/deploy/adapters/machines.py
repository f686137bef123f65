"""Training on several machines, each of which runs the same command; this is the one to which the others come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mainspring.deploy.meeting.host import Host, stop_of
from mainspring.training.distributed.conducting import Conductor
from mainspring.training.distributed.hearing import events_of
from mainspring.training.distributed.ports import Event, Job

_LOOK_S = 0.2


class MachinesRunner:
    """`Runner` on the machines of a `Host`, which is open.

    Args:
        wait_s: Longest time to wait for a machine that is lost to come back.
    """

    def __init__(self, host: Host, *, wait_s: float) -> None:
        self._host, self._wait_s = host, wait_s

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stopping = stop_of(self._host, stop)
        ending = threading.Event()
        conductor = Conductor(
            job.id, job.distributed, self._host, lambda **what: told.put(what),
            lambda: 15 if ending.is_set() else stopping(), wait_s=self._wait_s,
        )  # fmt: skip

        def conduct() -> None:
            try:
                conductor.run()
                told.put(None)
            except BaseException as error:
                told.put(error)

        thread = threading.Thread(target=conduct, name="conductor", daemon=True)
        thread.start()
        try:
            while (each := told.get()) is not None:
                if isinstance(each, BaseException):
                    raise each
                yield from events_of(each, stopping)
        finally:
            ending.set()
            thread.join()
            self._host.fetch_logs(job.folder)
