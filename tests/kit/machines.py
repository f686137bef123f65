"""Runner of trainings on several machines, each a process of this one; see `training.distributed.conducting`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mainspring.training.distributed.asking import MachineProcess
from mainspring.training.distributed.conducting import Conductor, Place
from mainspring.training.distributed.hearing import events_of
from mainspring.training.distributed.ports import OWNER, Event, Job


class OwnMachines:
    """`Machines`, of which another one comes for each that ends."""

    def __init__(self, entry: str, folder: Path) -> None:
        self._entry, self._folder = entry, folder
        (folder / OWNER).write_text("here")
        self.processes: list[MachineProcess] = []
        self._lost: set[int] = set()

    def place(self, count: int) -> Sequence[Place]:
        for number in sorted(self._lost, reverse=True):
            self.processes.pop(number).close()
        self._lost.clear()
        while len(self.processes) < count:
            self.processes.append(MachineProcess(self._entry, self._folder, "here", 1))
        return [Place(f"machine {each.process.pid}", "127.0.0.1") for each in self.processes]

    def ask(self, requests: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any] | None]:
        found = {number: self.processes[number].answer(json.dumps(request)) for number, request in requests.items()}
        self._lost |= {number for number, text in found.items() if not text}
        return {number: json.loads(text) if text else None for number, text in found.items()}

    def shown(self) -> str:
        return "this machine"

    def wanted(self) -> str:
        return "a process"

    def close(self) -> None:
        for each in self.processes:
            each.close()


class MachinesRunner:
    """`Runner` on them.

    Args:
        disturb: Called with the machines, each time when something was told.
    """

    def __init__(
        self, disturb: Callable[[OwnMachines, Mapping[str, Any]], None] = lambda _machines, _told: None
    ) -> None:
        self._disturb = disturb

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        (job.folder / "request.json").write_text(job.request)
        machines = OwnMachines(job.entry, job.folder)
        told: list[dict[str, Any]] = []

        def say(**what: Any) -> None:
            told.append(what)
            self._disturb(machines, what)

        try:
            Conductor(job.id, job.distributed, machines, say, stop, wait_s=5).run()
        finally:
            machines.close()
        for each in told:
            yield from events_of(each, stop)
