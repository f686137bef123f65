"""Runner of trainings on two machines, of which one comes to the other; both are processes of this one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mainspring.core.settings import Address
from mainspring.core.time import SystemClock
from mainspring.deploy.adapters.announced_machines import AnnouncedMachines
from mainspring.deploy.adapters.machines import MachinesRunner
from mainspring.deploy.meeting import certificates
from mainspring.deploy.meeting.guest import Guest
from mainspring.deploy.meeting.host import Host
from mainspring.deploy.meeting.model import Alike, Announced, Hello, Welcome
from mainspring.deploy.meeting.own import OwnRanks
from mainspring.project.catalog import memory_catalog
from mainspring.training.distributed.ports import Event, Job
from mainspring.training.loop.signals import Interrupted

_SAME = Alike({}, "", {})
_WAIT_S, _LAST_WORD_S = 60.0, 5.0


class _Work:
    """The ranks of the other machine, in the folder of the first."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ranks: OwnRanks | None = None

    def agrees(self, _welcome: Welcome) -> Sequence[str]:
        self._ranks = OwnRanks(self._job.entry, self._job.folder, self._job.id, self._job.distributed.processes)
        self._ranks.ask({"do": "look"})
        return []

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {} if self._ranks is None or request["do"] == "logs" else self._ranks.ask(request)

    def end(self) -> None:
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None


class MeetingRunner:
    """`Runner` on them."""

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        (job.folder / "request.json").write_text(job.request)
        announced = AnnouncedMachines(memory_catalog(), "model")
        own, other = (certificates.make(SystemClock().now()) for _ in range(2))
        host = Host(
            Address("127.0.0.1", 0), own, announced.every, ("zero", _SAME), model="model", machines=2, wait_s=_WAIT_S
        )
        announced.announce(Announced(0, "zero", f"127.0.0.1:{host.address.port}", own.pem))
        announced.announce(Announced(1, "one", "", other.pem))
        over = threading.Event()
        guest = Guest(
            other, announced.host, Hello(1, "one", _SAME), _Work(job),
            stop=lambda: signal.SIGTERM if over.is_set() else 0, wait_s=_WAIT_S, tell=lambda _what: None,
        )  # fmt: skip

        def take_part() -> None:
            with suppress(Interrupted):
                guest.run()

        thread = threading.Thread(target=take_part)
        host.open(Welcome(run=job.id), OwnRanks(job.entry, job.folder, job.id, job.distributed.processes))
        thread.start()
        try:
            yield from MachinesRunner(host, wait_s=_WAIT_S).run(job, stop)
        finally:
            host.close({})
            thread.join(_LAST_WORD_S)
            over.set()  # one that had not come yet is stopped as people would
            thread.join()
