"""Meter of this machine: the whole, what `up` and its children use, and what of the gateways is whose.

The worker looks often. What it saw last is in a file beside the gateways' counts, named after the number of the batch
that it is of: a look that was not stored is made again from the one before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mainspring.core.files import write_atomic
from mainspring.core.gpus import gpu_reader
from mainspring.core.machine_usage import MachineUsage, machine_usage
from mainspring.core.process_usage import gpus, main_thread_s, of_tree, open_gpus, proportional_bytes, tree
from mainspring.core.time import MINUTE
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage
from mainspring.operations.cost.gateways import Amounts, by_gpu, divided, grown, subject_of
from mainspring.operations.cost.teams import payers_of_requests
from mainspring.operations.service.sampling import place
from mainspring.project import Project
from mainspring.project.running import machine_name, read_running
from mainspring.serving.plane.uses import FOLDER, ProcessCounts, told

LONGEST_US = 10 * MINUTE  # after a longer pause the time between is left out: the machine may have slept
_LONG_US = MINUTE  # between two looks at the memory of processes
_log = logging.getLogger(__name__)


class _Whole(msgspec.Struct, frozen=True):
    """The machine at an instant."""

    at: int
    busy_s: float


class _Process(msgspec.Struct, frozen=True):
    """A gateway process at an instant; seconds of processor time since it began."""

    loop_s: float
    all_s: float
    counts: ProcessCounts


class _Seen(msgspec.Struct):
    """Use of `up` and its children, as it was seen at one look."""

    at: int
    supervisor: int = 0
    own_s: float = 0.0
    processes: dict[str, _Process] = {}


def metered_at(project: Project) -> dict[str, int]:
    """Return this machine's name with when it was metered last; nothing if it never was."""
    machine = machine_name()
    _, state = project.usage.last(_source(machine))
    return {machine: msgspec.msgpack.decode(state, type=_Whole).at} if state else {}


def _source(machine: str) -> str:
    return f"machine {machine}"


class MachineMeter:
    """Meters the machine of a project's worker."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folder = project.settings.state / FOLDER
        self._machine = machine_name()
        self._memory = (0, 0)  # of `up` and its children, and when that was measured

    def look(self) -> None:
        """Add what was used since the last look. Raises as `UsageStore.add` does."""
        now, whole = self._project.wall.now(), machine_usage()
        if whole is None:
            return
        self._of_whole(now, whole)
        self._of_own(now, whole)

    def _of_whole(self, now: int, whole: MachineUsage) -> None:
        """Add the capacity and what nothing used. Several meters of a machine go on from one another."""
        store, source = self._project.usage, _source(self._machine)
        sequence, state = store.last(source)
        before = msgspec.msgpack.decode(state, type=_Whole) if state else None
        usages = []
        if before is not None and 0 < now - before.at <= LONGEST_US and whole.busy_s >= before.busy_s:
            elapsed = now - before.at
            capacity = round(whole.cores * elapsed)
            busy = min(capacity, round((whole.busy_s - before.busy_s) * 1e6))
            free = max(0, whole.memory_bytes - whole.used_bytes)
            for id, cpu, memory in ((CAPACITY, capacity, whole.memory_bytes), (IDLE, capacity - busy, free)):
                amounts = {"cpu": cpu, "memory": memory * elapsed // 1_000_000}
                usages += self._usages(now, {Subject(MACHINE, id): amounts})
            usages += self._usages(now, self._of_gpus(elapsed))
        store.add(source, sequence + 1, usages, msgspec.msgpack.encode(_Whole(now, whole.busy_s)))

    def _of_gpus(self, elapsed: int) -> Amounts:
        """Return the time of all GPUs, and of those that were idle: neither at work now, nor open in `up`."""
        count = len(gpus())
        if not count:
            return {}
        read = gpu_reader()
        working = {each.number for each in (read() if read is not None else ()) if each.busy}
        running = read_running(self._project.settings.state)
        used = working | (open_gpus(running.pid) if running is not None else set())
        return {
            Subject(MACHINE, CAPACITY): {"gpu": count * elapsed},
            Subject(MACHINE, IDLE): {"gpu": max(0, count - len(used)) * elapsed},
        }

    def _of_own(self, now: int, whole: MachineUsage) -> None:
        store, source = self._project.usage, f"up {place(self._project)}"
        sequence, _ = store.last(source)
        before = self._read(sequence)
        running = read_running(self._project.settings.state)
        used = None if running is None else of_tree(running.pid)
        if running is None or used is None:
            return
        seen = _Seen(now, running.pid, used.cpu_s)
        ended = []
        amounts: Amounts = {}
        known = before is not None
        there = set(tree(running.pid))
        elapsed = 0  # of memory and GPUs: none where `up` was away meanwhile, or nobody looked
        if before is not None and before.supervisor == running.pid and 0 < now - before.at <= LONGEST_US:
            elapsed = now - before.at
        for path, counts in told(self._folder):
            found = _process(counts) if counts.pid in there else None
            was = before.processes.get(path.name) if before is not None else None
            if found is None:
                ended.append(path)
            # Also of one that ended: its file is deleted once the batch is stored, and a kill may come between.
            seen.processes[path.name] = found or _Process(0.0, 0.0, counts)
            if known:
                self._divide(amounts, was, found, counts, elapsed, whole)
        if known and before is not None:
            since = before.own_s if before.supervisor == running.pid else 0.0
            memory = self._resident(running.pid, now) * elapsed // 1_000_000
            reserved = len(open_gpus(running.pid)) * elapsed
            own = {"gpu": reserved, "cpu": round(max(0.0, used.cpu_s - since) * 1e6), "memory": memory}
            amounts[Subject(MACHINE, OWN)] = own
        self._write(sequence + 1, seen)
        if store.add(source, sequence + 1, self._usages(now, amounts)):
            self._tidy(sequence + 1, ended)

    def _divide(
        self,
        amounts: Amounts,
        was: _Process | None,
        found: _Process | None,
        counts: ProcessCounts,
        elapsed: int,
        whole: MachineUsage,
    ) -> None:
        """Add what callers had of a gateway process; of one that ended the processor time is not known any more."""
        lanes = grown(None if was is None else was.counts, counts)
        loop_s = other_s = 0.0
        if found is not None:
            begun = counts if was is None else was
            loop_s = found.loop_s - begun.loop_s
            other_s = found.all_s - begun.all_s - loop_s
            for subject, reserved in by_gpu(lanes, len(open_gpus(counts.pid)) * elapsed).items():
                of = amounts.setdefault(subject, {})
                of["gpu"] = of.get("gpu", 0) + reserved
            for each in lanes:
                if each.uses.memory:
                    of = amounts.setdefault(subject_of(each), {})
                    of["memory"] = of.get("memory", 0) + each.uses.memory * elapsed // 1_000_000
        loop_us, other_us = (round(max(0.0, seconds) * 1e6) for seconds in (loop_s, other_s))
        for subject, more in divided(lanes, loop_us=loop_us, other_us=other_us, cores=whole.cores).items():
            of = amounts.setdefault(subject, {})
            for measure, amount in more.items():
                of[measure] = of.get(measure, 0) + amount

    def _resident(self, pid: int, now: int) -> int:
        if not 0 <= now - self._memory[1] < _LONG_US:
            self._memory = proportional_bytes(pid), now
        return self._memory[0]

    def _usages(self, now: int, amounts: Amounts) -> list[Usage]:
        return [
            Usage(machine=self._machine, start=now, subject=self._paid(subject), measure=measure, amount=amount)
            for subject, of in amounts.items()
            for measure, amount in of.items()
            if amount
        ]

    def _paid(self, subject: Subject) -> Subject:
        """Return a subject with who pays for it, where its caller has no group."""
        if subject.kind == MACHINE or subject.teams:
            return subject
        return msgspec.structs.replace(subject, teams=payers_of_requests(self._project, subject.model))

    def _read(self, sequence: int) -> _Seen | None:
        try:
            return msgspec.msgpack.decode((self._folder / f"{sequence}.seen").read_bytes(), type=_Seen)
        except (OSError, msgspec.MsgspecError):
            return None

    def _write(self, sequence: int, seen: _Seen) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._folder / f"{sequence}.seen", msgspec.msgpack.encode(seen))

    def _tidy(self, sequence: int, ended: list[Path]) -> None:
        for path in (*ended, *_older(self._folder, sequence)):
            path.unlink(missing_ok=True)


def _older(folder: Path, sequence: int) -> Iterator[Path]:
    for path in folder.glob("*.seen"):
        if path.stem.isdigit() and int(path.stem) < sequence:
            yield path


def _process(counts: ProcessCounts) -> _Process | None:
    used, loop_s = of_tree(counts.pid), main_thread_s(counts.pid)
    if used is None or loop_s is None:
        return None
    return _Process(loop_s, used.cpu_s, counts)
